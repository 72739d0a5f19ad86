package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"labswarm/api"
)

// JobService makes, shows and ends jobs.
type JobService interface {
	Jobs(ctx context.Context) ([]api.Job, error)
	Job(ctx context.Context, id uint64) (api.Job, error)
	PlanJob(ctx context.Context, req *api.JobCreate) (api.JobPlan, error)
	CreateJob(ctx context.Context, req *api.JobCreate, idemKey string) (api.Job, error)
	CancelJob(ctx context.Context, id uint64, by string) (api.Job, error)
	SteerService
	CreateCapture(ctx context.Context, image string, req *api.CaptureCreate, idemKey string) (api.Job, error)
	// Report returns the run report, ready to be written as JSON.
	Report(ctx context.Context, id uint64) (any, error)
}

func (a *Admin) jobRoutes() []Route {
	one := api.RouteJobs + "/{id}"
	return []Route{
		{Method: "GET", Path: api.RouteJobs, Summary: "all jobs, the newest first, without timelines", Out: []api.Job{}, h: get(a.svc.Jobs)},
		{Method: "POST", Path: api.RouteJobs, Role: api.RoleOperator, Summary: "make a job, or its dry run", In: api.JobCreate{}, Out: api.Job{}, Or: api.JobPlan{}, rooms: a.roomsOfWish, asks: isDryRun, rerun: true, h: a.createJob},
		{Method: "GET", Path: one, Summary: "one job with its slots", Out: api.Job{}, h: a.job},
		{Method: "POST", Path: one + "/cancel", Role: api.RoleOperator, Summary: "end a job; PCs that are being written go on", Out: api.Job{}, rooms: a.roomsOfJob, h: a.cancelJob},
		{Method: "GET", Path: one + "/report", Summary: "the run report", h: a.report},
		{Method: "POST", Path: api.RouteImages + "/{name}/capture", Role: api.RoleAdmin, Summary: "read a PC's disk as a new image version", In: api.CaptureCreate{}, Out: api.Job{}, rerun: true, h: a.capture},
	}
}

func jobID(r *http.Request) (uint64, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, fail(http.StatusNotFound, api.CodeNotFound, "job %q is not known", r.PathValue("id"))
	}
	return id, nil
}

func (a *Admin) job(w http.ResponseWriter, r *http.Request) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	j, err := a.svc.Job(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, j)
}

func (a *Admin) report(w http.ResponseWriter, r *http.Request) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	rep, err := a.svc.Report(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, rep)
}

func (a *Admin) cancelJob(w http.ResponseWriter, r *http.Request) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	j, err := a.svc.CancelJob(r.Context(), id, by(r))
	if err != nil {
		return err
	}
	return answer(w, j)
}

func (a *Admin) createJob(w http.ResponseWriter, r *http.Request) error {
	var req api.JobCreate
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	if req.DryRun {
		plan, err := a.svc.PlanJob(r.Context(), &req)
		if err != nil {
			return err
		}
		return answer(w, plan)
	}
	key, err := idemKey(r, "creating a job")
	if err != nil {
		return err
	}
	j, err := a.svc.CreateJob(r.Context(), &req, key)
	if err != nil {
		return err
	}
	return created(w, j)
}
