package httpapi

import (
	"context"
	"net/http"
	"strings"

	"labswarm/api"
)

// ScheduleService starts jobs at local times.
type ScheduleService interface {
	Schedules(ctx context.Context) ([]api.ScheduleInfo, error)
	Schedule(ctx context.Context, name string) (api.ScheduleInfo, error)
	PutSchedule(ctx context.Context, req *api.SchedulePut) (api.ScheduleInfo, error)
	RemoveSchedule(ctx context.Context, name string) error
	PauseSchedule(ctx context.Context, name string, pause bool, by string) (api.ScheduleInfo, error)
	RunSchedule(ctx context.Context, name, confirm, idemKey string) (api.Job, error)
	ScheduleRuns(ctx context.Context, name string) ([]api.ScheduleRun, error)
	Calendars(ctx context.Context) ([]api.Calendar, error)
	PutCalendar(ctx context.Context, c api.Calendar) (api.Calendar, error)
	RemoveCalendar(ctx context.Context, name string) error
}

func (a *Admin) scheduleRoutes() []Route {
	one, cal := api.RouteSchedules+"/{name}", api.RouteCalendars+"/{name}"
	return []Route{
		{Method: "GET", Path: api.RouteSchedules, Summary: "all schedules with their next five runs", Out: []api.ScheduleInfo{}, h: get(a.svc.Schedules)},
		{Method: "GET", Path: one, Summary: "one schedule", Out: api.ScheduleInfo{}, h: a.schedule},
		{Method: "PUT", Path: one, Role: api.RoleOperator, Summary: "save a schedule, or its dry run", In: api.SchedulePut{}, Out: api.ScheduleInfo{}, rooms: a.roomsOfSaved, asks: isDryRun, h: a.putSchedule},
		{Method: "DELETE", Path: one, Role: api.RoleOperator, Summary: "remove a schedule; its ledger stays", rooms: a.roomsOfSchedule, h: a.removeNamed(a.svc.RemoveSchedule)},
		{Method: "POST", Path: one + "/pause", Role: api.RoleOperator, Summary: "runs are skipped until it is resumed", Out: api.ScheduleInfo{}, rooms: a.roomsOfSchedule, h: a.pauseSchedule(true)},
		{Method: "POST", Path: one + "/resume", Role: api.RoleOperator, Summary: "end a pause, and say that the server's clock is right", Out: api.ScheduleInfo{}, rooms: a.roomsOfResumed, h: a.pauseSchedule(false)},
		{Method: "POST", Path: one + "/run", Role: api.RoleOperator, Summary: "make its job now", In: api.ScheduleRunNow{}, Out: api.Job{}, rooms: a.roomsOfSchedule, rerun: true, h: a.runSchedule},
		{Method: "GET", Path: one + "/runs", Summary: "what became of its runs, the newest first", Out: []api.ScheduleRun{}, h: a.scheduleRuns},
		{Method: "GET", Path: api.RouteCalendars, Summary: "all calendars", Out: []api.Calendar{}, h: get(a.svc.Calendars)},
		{Method: "PUT", Path: cal, Role: api.RoleOperator, Summary: "save a calendar", In: api.Calendar{}, Out: api.Calendar{}, h: a.putCalendar},
		{Method: "DELETE", Path: cal, Role: api.RoleOperator, Summary: "remove a calendar that no schedule needs", h: a.removeNamed(a.svc.RemoveCalendar)},
	}
}

func (a *Admin) schedule(w http.ResponseWriter, r *http.Request) error {
	s, err := a.svc.Schedule(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, s)
}

// sameName refuses a body that names another thing than its path.
func sameName(r *http.Request, name *string) error {
	switch want := r.PathValue("name"); {
	case *name == "":
		*name = want
	case !strings.EqualFold(*name, want):
		return fail(http.StatusUnprocessableEntity, api.CodeUsage, "the path names %q, the body %q", want, *name)
	}
	return nil
}

func (a *Admin) putSchedule(w http.ResponseWriter, r *http.Request) error {
	var req api.SchedulePut
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	if err := sameName(r, &req.Name); err != nil {
		return err
	}
	s, err := a.svc.PutSchedule(r.Context(), &req)
	if err != nil {
		return err
	}
	return answer(w, s)
}

func (a *Admin) removeNamed(do func(context.Context, string) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := do(r.Context(), r.PathValue("name")); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (a *Admin) pauseSchedule(pause bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		s, err := a.svc.PauseSchedule(r.Context(), r.PathValue("name"), pause, by(r))
		if err != nil {
			return err
		}
		return answer(w, s)
	}
}

func (a *Admin) runSchedule(w http.ResponseWriter, r *http.Request) error {
	var req api.ScheduleRunNow
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	key, err := idemKey(r, "running a schedule")
	if err != nil {
		return err
	}
	j, err := a.svc.RunSchedule(r.Context(), r.PathValue("name"), req.Confirm, key)
	if err != nil {
		return err
	}
	return created(w, j)
}

func (a *Admin) scheduleRuns(w http.ResponseWriter, r *http.Request) error {
	runs, err := a.svc.ScheduleRuns(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, runs)
}

func (a *Admin) putCalendar(w http.ResponseWriter, r *http.Request) error {
	var c api.Calendar
	if err := decode(w, r, adminBody, &c); err != nil {
		return err
	}
	if err := sameName(r, &c.Name); err != nil {
		return err
	}
	out, err := a.svc.PutCalendar(r.Context(), c)
	if err != nil {
		return err
	}
	return answer(w, out)
}
