package httpapi

import (
	"log/slog"
	"net/http"
	"time"

	"labswarm/api"
)

// Observer is told of each request that was answered: the pattern of its route ("" = none), the status and the time it took.
type Observer func(route string, code int, took time.Duration)

// Observe has o told of the admin API's requests. Call it before Serve.
func (a *Admin) Observe(o Observer) { a.handler = observed(a.mux, o) }

// Observe has o told of the agents' requests. Call it before Serve.
func (a *Agent) Observe(o Observer) { a.srv.Handler = observed(a.srv.Handler, o) }

// statusWriter remembers the status. http.ResponseController finds the writer below by Unwrap.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap gives http.ResponseController its way.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observed times requests. Event streams are left out: they last as long as somebody looks.
func observed(h http.Handler, o Observer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == api.RouteAdminEv || r.URL.Path == api.RouteEvents {
			h.ServeHTTP(w, r)
			return
		}
		sw, begun := &statusWriter{ResponseWriter: w}, time.Now()
		h.ServeHTTP(sw, r)
		if sw.code == 0 {
			sw.code = http.StatusOK
		}
		o(r.Pattern, sw.code, time.Since(begun))
	})
}

// Monitor is a read-only handler of health and figures for a TCP address.
func Monitor(h Health, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	for _, r := range healthRoutes(h) {
		mux.Handle(r.Method+" "+r.Path, wrap(log, r.h))
	}
	return mux
}
