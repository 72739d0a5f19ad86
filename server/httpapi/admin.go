package httpapi

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"labswarm/api"
	"labswarm/server/access"
)

// AdminService is what the admin socket needs, one interface per area.
type AdminService interface {
	HostService
	InventoryService
	ImageService
	JobService
	ScheduleService
	WakeService
	CodeService
	RelayAdmin
	EventService
	AccessService
	OpsService
	ReportService
	ImageList(ctx context.Context) ([]api.Image, error)
}

const adminBody = 1 << 20

// Admin serves the admin routes: on the unix socket, and with tokens over TLS.
type Admin struct {
	svc   AdminService
	log   *slog.Logger
	mux   *http.ServeMux
	book  *access.Book // nil = no tokens, no audit log, no kept answers: tests
	peers access.Peers
	lag   time.Duration // a reader of events that takes longer for one is cut

	handler   http.Handler           // mux, with whoever observes it
	document  func() ([]byte, error) // OpenAPI, made once
	bad       *sources               // requests without a valid token
	strangers *rate.Limiter          // of those in the audit log
}

// NewAdmin prepares the admin handlers.
func NewAdmin(svc AdminService, log *slog.Logger) *Admin {
	a := &Admin{svc: svc, log: log, lag: lagLimit, bad: newSources(badPerS, 5, maxSources), strangers: rate.NewLimiter(refusedPerS, refusedBurst)}
	a.document = sync.OnceValues(a.OpenAPI)
	a.mux = http.NewServeMux()
	for _, r := range a.routes() {
		a.mux.Handle(r.Method+" "+r.Path, a.guard(r))
	}
	a.mux.Handle("/", wrap(log, func(w http.ResponseWriter, r *http.Request) error {
		r, done, _, err := a.enter(w, r, "no such route")
		if err != nil {
			return err
		}
		defer done()
		return fail(http.StatusNotFound, api.CodeNotFound, "no route %s %s", r.Method, r.URL.Path)
	}))
	a.handler = a.mux
	return a
}

// Use gives it the book of tokens, audit and kept answers, and the roles of the
// socket's users. Call it before Serve.
func (a *Admin) Use(book *access.Book, peers access.Peers) { a.book, a.peers = book, peers }

// Handler is the admin API for a caller who is known already, for tests.
func (a *Admin) Handler(c access.Caller) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), doorKey{}, &door{caller: c})))
	})
}

// Serve answers on the unix socket l until ctx ends.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error {
	srv := server(a.handler, a.log)
	srv.ConnContext = a.onSocket
	return serve(ctx, srv, l)
}

// ServeTLS answers on l until ctx ends, whoever shows a token. Clients pin the
// key of cert.
func (a *Admin) ServeTLS(ctx context.Context, l net.Listener, cert tls.Certificate) error {
	srv := server(a.handler, a.log)
	srv.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, doorKey{}, &door{bearer: true})
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	return serve(ctx, srv, tls.NewListener(l, conf))
}

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
