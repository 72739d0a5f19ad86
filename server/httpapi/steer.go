package httpapi

import (
	"context"
	"net/http"
	"time"

	"labswarm/api"
	"labswarm/server/access"
)

// SteerService changes jobs that live.
type SteerService interface {
	PauseJob(ctx context.Context, id uint64, by string) (api.Job, error)
	ResumeJob(ctx context.Context, id uint64, by string) (api.Job, error)
	ExtendJob(ctx context.Context, id uint64, notAfter time.Time, by string) (api.Job, error)
	ActOnHost(ctx context.Context, id uint64, host, act, by string) (api.Job, error)
}

// by is who asks, for the texts of events.
func by(r *http.Request) string { return access.Who(r.Context(), "the admin") }

func (a *Admin) steerRoutes() []Route {
	one := api.RouteJobs + "/{id}"
	routes := []Route{
		{Method: "POST", Path: api.RoutePlans, Summary: "the dry run of a job: what would happen to each PC, and the digest that a job must name", In: api.JobCreate{}, Out: api.JobPlan{}, asks: onlyAsks, h: a.plan},
		{Method: "POST", Path: one + "/pause", Role: api.RoleOperator, Summary: "PCs that have not begun to write wait; the others finish", Out: api.Job{}, rooms: a.roomsOfJob, h: a.onJob(a.svc.PauseJob)},
		{Method: "POST", Path: one + "/resume", Role: api.RoleOperator, Summary: "end a pause; failures up to now are accepted", Out: api.Job{}, rooms: a.roomsOfJob, h: a.onJob(a.svc.ResumeJob)},
		{Method: "POST", Path: one + "/extend", Role: api.RoleOperator, Summary: "move the end of a job's window", In: api.JobExtend{}, Out: api.Job{}, rooms: a.roomsOfJob, h: a.extend},
	}
	for _, act := range []struct{ name, summary string }{
		{api.ActRetry, "give a PC that ended without the image another chance"},
		{api.ActSkip, "leave a PC out, before its point of no return"},
		{api.ActHold, "keep a PC from going on"},
		{api.ActRelease, "let a held PC go on"},
	} {
		routes = append(routes, Route{Method: "POST", Path: one + "/hosts/{host}/" + act.name, Role: api.RoleOperator, Summary: act.summary, Out: api.Job{}, rooms: a.roomsOfJob,
			h: func(w http.ResponseWriter, r *http.Request) error {
				id, err := jobID(r)
				if err != nil {
					return err
				}
				j, err := a.svc.ActOnHost(r.Context(), id, r.PathValue("host"), act.name, by(r))
				if err != nil {
					return err
				}
				return answer(w, j)
			}})
	}
	return routes
}

// onJob makes a handler of something that needs the job only.
func (a *Admin) onJob(do func(ctx context.Context, id uint64, by string) (api.Job, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := jobID(r)
		if err != nil {
			return err
		}
		j, err := do(r.Context(), id, by(r))
		if err != nil {
			return err
		}
		return answer(w, j)
	}
}

func (a *Admin) extend(w http.ResponseWriter, r *http.Request) error {
	var req api.JobExtend
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	return a.onJob(func(ctx context.Context, id uint64, by string) (api.Job, error) {
		return a.svc.ExtendJob(ctx, id, req.NotAfter, by)
	})(w, r)
}

func (a *Admin) plan(w http.ResponseWriter, r *http.Request) error {
	var req api.JobCreate
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	plan, err := a.svc.PlanJob(r.Context(), &req)
	if err != nil {
		return err
	}
	return answer(w, plan)
}
