package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"labswarm/api"
)

// AdminService is what the admin socket needs.
type AdminService interface {
	Server(ctx context.Context) (api.ServerInfo, error)
	Rooms(ctx context.Context) ([]api.Room, error)
	Hosts(ctx context.Context) ([]api.Host, error)
	Host(ctx context.Context, name string) (api.Host, error)
	PutHost(ctx context.Context, h api.Host) (api.Host, error)
	RemoveHost(ctx context.Context, name string) error
	ImageList(ctx context.Context) ([]api.Image, error)
	ImageService
	Jobs(ctx context.Context) ([]api.Job, error)
	Job(ctx context.Context, id uint64) (api.Job, error)
	PlanJob(ctx context.Context, req *api.JobCreate) (api.JobPlan, error)
	CreateJob(ctx context.Context, req *api.JobCreate, idemKey string) (api.Job, error)
	CancelJob(ctx context.Context, id uint64, by string) (api.Job, error)
	CreateCapture(ctx context.Context, image string, req *api.CaptureCreate, idemKey string) (api.Job, error)
	Relays(ctx context.Context) ([]api.Relay, error)
	AddRelay(ctx context.Context, name string) (api.RelayToken, error)
	RemoveRelay(ctx context.Context, name string) error
	// Report returns the run report, ready to be written as JSON.
	Report(ctx context.Context, id uint64) (any, error)
	EventsSince(ctx context.Context, after uint64, limit int) ([]api.Event, error)
	LastEvent(ctx context.Context) (uint64, error)
	Tick(ctx context.Context) (api.Tick, error)
	Wake() (ch <-chan struct{}, cancel func())
}

const (
	adminBody  = 1 << 20
	tickEvery  = 300 * time.Millisecond // at most 4 a second per subscriber
	eventBatch = 500
	maxKey     = 128 // characters of an Idempotency-Key
)

// Admin serves the admin routes.
type Admin struct {
	svc AdminService
	log *slog.Logger
	srv *http.Server
}

// NewAdmin prepares the admin handlers.
func NewAdmin(svc AdminService, log *slog.Logger) *Admin {
	a := &Admin{svc: svc, log: log}
	mux := http.NewServeMux()
	for route, h := range map[string]handler{
		"GET " + api.RouteServer:                      get(svc.Server),
		"GET " + api.RouteRooms:                       get(svc.Rooms),
		"GET " + api.RouteHosts:                       get(svc.Hosts),
		"POST " + api.RouteHosts:                      a.putHost,
		"GET " + api.RouteHosts + "/{name}":           a.host,
		"DELETE " + api.RouteHosts + "/{name}":        a.removeHost,
		"GET " + api.RouteImages:                      get(svc.ImageList),
		"GET " + api.RouteImageStates:                 get(svc.ImageStates),
		"GET " + api.RouteImageGarbage:                a.imageGarbage,
		"POST " + api.RouteImageRemove:                post(svc.RemoveImage),
		"POST " + api.RouteImagePin:                   post(svc.PinImage),
		"POST " + api.RouteImageChecked:               post(svc.CheckedImage),
		"POST " + api.RouteImages + "/{name}/capture": a.capture,
		"GET " + api.RouteJobs:                        get(svc.Jobs),
		"POST " + api.RouteJobs:                       a.createJob,
		"GET " + api.RouteJobs + "/{id}":              a.job,
		"POST " + api.RouteJobs + "/{id}/cancel":      a.cancelJob,
		"GET " + api.RouteJobs + "/{id}/report":       a.report,
		"GET " + api.RouteRelays:                      get(svc.Relays),
		"POST " + api.RouteRelays:                     a.addRelay,
		"DELETE " + api.RouteRelays + "/{name}":       a.removeRelay,
		"GET " + api.RouteAdminEv:                     a.events,
	} {
		mux.Handle(route, wrap(log, h))
	}
	mux.Handle("/", wrap(log, func(_ http.ResponseWriter, r *http.Request) error {
		return fail(http.StatusNotFound, api.CodeNotFound, "no route %s %s", r.Method, r.URL.Path)
	}))
	a.srv = server(mux, log)
	return a
}

// Handler is the socket's handler, for tests.
func (a *Admin) Handler() http.Handler { return a.srv.Handler }

// Serve answers on l until ctx ends.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error { return serve(ctx, a.srv, l) }

// get makes a handler of a question without parameters.
func get[T any](ask func(context.Context) (T, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := ask(r.Context())
		if err != nil {
			return err
		}
		return answer(w, v)
	}
}

func (a *Admin) host(w http.ResponseWriter, r *http.Request) error {
	h, err := a.svc.Host(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, h)
}

func (a *Admin) putHost(w http.ResponseWriter, r *http.Request) error {
	var h api.Host
	if err := decode(w, r, adminBody, &h); err != nil {
		return err
	}
	out, err := a.svc.PutHost(r.Context(), h)
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Admin) removeHost(w http.ResponseWriter, r *http.Request) error {
	if err := a.svc.RemoveHost(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
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
	j, err := a.svc.CancelJob(r.Context(), id, "the admin")
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

// events streams log events from a number on, and ticks.
func (a *Admin) events(w http.ResponseWriter, r *http.Request) error {
	last, err := a.startAt(r)
	if err != nil {
		return err
	}
	wake, stop := a.svc.Wake()
	defer stop()
	s, err := newStream(w)
	if err != nil {
		return err
	}
	tick, alive := time.NewTicker(tickEvery), time.NewTicker(keepAlive)
	defer tick.Stop()
	defer alive.Stop()
	shown := ""
	if last, err = a.sendLog(r.Context(), s, last); err == nil {
		shown, err = a.sendTick(r.Context(), s, shown)
	}
	for err == nil {
		select {
		case <-r.Context().Done():
			return nil
		case <-wake:
			last, err = a.sendLog(r.Context(), s, last)
		case <-tick.C:
			shown, err = a.sendTick(r.Context(), s, shown)
		case <-alive.C:
			err = s.comment("alive")
		}
	}
	a.log.Debug("event stream ended", "err", err)
	return nil
}

// startAt reads ?since= or Last-Event-ID; without either the stream starts now.
func (a *Admin) startAt(r *http.Request) (uint64, error) {
	text := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("since"); q != "" {
		text = q
	}
	if text == "" {
		return a.svc.LastEvent(r.Context())
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fail(http.StatusBadRequest, api.CodeUsage, "since %q is no event number", text)
	}
	return n, nil
}

// sendLog sends everything after last. No store transaction is open while a
// client is written to.
func (a *Admin) sendLog(ctx context.Context, s *stream, last uint64) (uint64, error) {
	for {
		events, err := a.svc.EventsSince(ctx, last, eventBatch)
		if err != nil {
			return last, err
		}
		for _, e := range events {
			if err := s.send("log", e.Seq, e); err != nil {
				return last, err
			}
			last = e.Seq
		}
		if len(events) < eventBatch {
			return last, nil
		}
	}
}

// sendTick sends the snapshot when it says something new, and every two
// seconds anyhow, so that the reader can tell a quiet server from a dead one.
func (a *Admin) sendTick(ctx context.Context, s *stream, shown string) (string, error) {
	t, err := a.svc.Tick(ctx)
	if err != nil {
		return shown, err
	}
	at := t.Time
	t.Time = at.Truncate(2 * time.Second)
	raw, err := json.Marshal(t)
	if err != nil || string(raw) == shown {
		return shown, err
	}
	t.Time = at
	return string(raw), s.send("tick", 0, t)
}
