package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"labswarm/api"
)

// doctorLimit is more than the probes of a Doctor wait for, side by side.
const doctorLimit = 25 * time.Second

// OpsService runs the server itself.
type OpsService interface {
	Snapshot(ctx context.Context) (api.Snapshot, error)
	// Doctor examines server and network; it takes some seconds.
	Doctor(ctx context.Context) (api.Checkup, error)
	Health
}

// Health is what monitoring asks. Nothing of it is secret.
type Health interface {
	// Alive is nil while the job loop makes its rounds.
	Alive() error
	// Ready lists the parts that must be up.
	Ready(ctx context.Context) []api.Check
	// Metrics answers in the format of Prometheus.
	Metrics() http.Handler
}

func (a *Admin) opsRoutes() []Route {
	rows := []Route{
		{Method: "POST", Path: api.RouteSnapshot, Role: api.RoleAdmin, Summary: "copy the server's state", Out: api.Snapshot{}, h: func(w http.ResponseWriter, r *http.Request) error {
			s, err := a.svc.Snapshot(r.Context())
			if err != nil {
				return err
			}
			return answerStatus(w, http.StatusCreated, s)
		}},
		{Method: "GET", Path: api.RouteDoctor, Role: api.RoleOperator, Summary: "examine server and network; takes some seconds", Out: api.Checkup{}, h: a.doctor},
	}
	return append(rows, healthRoutes(a.svc)...)
}

// healthRoutes are also what MonitorHandler serves.
func healthRoutes(h Health) []Route {
	return []Route{
		{Method: "GET", Path: api.RouteHealth, Summary: "200 while the job loop makes its rounds", h: func(w http.ResponseWriter, _ *http.Request) error {
			if err := h.Alive(); err != nil {
				return plain(w, http.StatusServiceUnavailable, err.Error()+"\n")
			}
			return plain(w, http.StatusOK, "ok\n")
		}},
		{Method: "GET", Path: api.RouteReady, Summary: "200 when every part is up", Query: []string{"verbose"}, h: func(w http.ResponseWriter, r *http.Request) error {
			return ready(w, h.Ready(r.Context()), r.URL.Query().Has("verbose"))
		}},
		{Method: "GET", Path: api.RouteMetrics, Summary: "figures for Prometheus", h: func(w http.ResponseWriter, r *http.Request) error {
			h.Metrics().ServeHTTP(w, r)
			return nil
		}},
	}
}

// ready lists what is not ready, or everything.
func ready(w http.ResponseWriter, checks []api.Check, verbose bool) error {
	var b strings.Builder
	status := http.StatusOK
	for _, c := range checks {
		if c.Result == api.CheckFail {
			status = http.StatusServiceUnavailable
		}
		if verbose || c.Result == api.CheckFail {
			fmt.Fprintf(&b, "%s %s: %s\n", c.Result, c.Name, c.Text)
		}
	}
	if b.Len() == 0 {
		b.WriteString("ok\n")
	}
	return plain(w, status, b.String())
}

func plain(w http.ResponseWriter, status int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the asker has gone
	return nil
}

func (a *Admin) doctor(w http.ResponseWriter, r *http.Request) error {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(doctorLimit)); err != nil {
		return fmt.Errorf("give the doctor time: %w", err)
	}
	d, err := a.svc.Doctor(r.Context())
	if err != nil {
		return err
	}
	return answer(w, d)
}
