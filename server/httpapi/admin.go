package httpapi

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"labswarm/api"
)

// AdminService is what the admin socket needs, one interface per area.
type AdminService interface {
	HostService
	ImageService
	JobService
	ScheduleService
	WakeService
	RelayAdmin
	EventService
	ImageList(ctx context.Context) ([]api.Image, error)
}

const (
	adminBody = 1 << 20
	maxKey    = 128 // characters of an Idempotency-Key
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
	for _, r := range a.routes() {
		mux.Handle(r.Method+" "+r.Path, wrap(log, r.h))
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
