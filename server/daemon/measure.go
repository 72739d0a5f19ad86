package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/server/daemon/control"
	"labswarm/server/decide"
	"labswarm/server/metrics"
	"labswarm/server/netboot"
	"labswarm/server/store"
)

// openMetrics makes the figures; what they ask is opened later.
func (s *server) openMetrics() {
	s.metrics = metrics.New(metrics.Sources{
		Hosts: func() int {
			n, _, err := s.engine.Counts(context.Background())
			if err != nil {
				return -1
			}
			return n
		},
		Tick: func() api.Tick {
			t, err := s.engine.Look(context.Background(), time.Now())
			if err != nil {
				return api.Tick{}
			}
			return t
		},
		StoreSize: func() int64 { return fileSize(filepath.Join(s.cfg.StateDir, stateFile)) },
		ImageFree: func() int64 { return freeBytes(filepath.Join(s.cfg.StateDir, "images")) },
		Outbox: func() int {
			n, err := s.notify.Pending(context.Background())
			if err != nil {
				return -1
			}
			return n
		},
		Scrubbed: s.scrubbed, Schedules: s.scheduleTimes,
	}, s.begun)
}

// scrubbed counts versions in quarantine and finds the oldest last check.
func (s *server) scrubbed() (quarantined int, oldest int64) {
	states, err := s.keeper.ImageStates(context.Background())
	if err != nil {
		return -1, 0
	}
	for _, v := range states {
		if v.Quarantine != "" {
			quarantined++
		}
		if t := v.Checked; !t.IsZero() && (oldest == 0 || t.Unix() < oldest) {
			oldest = t.Unix()
		}
	}
	return quarantined, oldest
}

// scheduleTimes is metrics.Sources.Schedules.
func (s *server) scheduleTimes() (out []metrics.Schedule) {
	list, err := s.engine.ScheduleTimes(context.Background())
	if err != nil {
		return nil // no value says that it is not known
	}
	unix := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	for _, t := range list {
		out = append(out, metrics.Schedule{Name: t.Name, Next: unix(t.Next), Success: unix(t.Success)})
	}
	return out
}

func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return st.Size()
}

// freeBytes is what is left for the server on a folder's disk, -1 = unknown.
func freeBytes(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * st.Bsize
}

// transition is control.Config.Observe.
func (s *server) transition(t control.Transition) {
	s.metrics.Transition(t.From, t.To, t.Final, t.Code, t.Took)
}

// request is an httpapi.Observer.
func (s *server) request(route string, code int, took time.Duration) {
	s.metrics.HTTP.WithLabelValues(route, strconv.Itoa(code)).Observe(took.Seconds())
}

func (s *server) countDHCP(kind, result string) {
	kind, _, _ = strings.Cut(strings.ToLower(kind), " ") // "unknown (77)" is made by the sender
	s.metrics.DHCP.WithLabelValues(kind, result).Inc()
}

// result is a label's value of an answer: ok, or the problem's stable code.
func result(err error) string {
	var p *api.Problem
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &p):
		return p.Code
	}
	return api.CodeInternal
}

// timedStore measures durable writes.
type timedStore struct {
	store.Store
	m *metrics.Set
}

// Update implements store.Store.
func (t timedStore) Update(ctx context.Context, fn func(store.Tx) error) error {
	begun := time.Now()
	err := t.Store.Update(ctx, fn)
	if err == nil {
		t.m.Commit.Observe(time.Since(begun).Seconds())
	}
	return err
}

// countedAgents is the engine as agents reach it, with counters.
type countedAgents struct {
	*control.Engine
	m *metrics.Set
}

// Order implements httpapi.AgentService. An agent asks until there is one: those questions are "none".
func (c countedAgents) Order(ctx context.Context, cert string) (json.RawMessage, error) {
	env, err := c.Engine.Order(ctx, cert)
	what := result(err)
	if err == nil && env == nil {
		what = "none"
	}
	c.m.Orders.WithLabelValues(what).Inc()
	return env, err
}

// Commence implements httpapi.AgentService.
func (c countedAgents) Commence(ctx context.Context, cert string, req *api.CommenceRequest) (json.RawMessage, error) {
	env, err := c.Engine.Commence(ctx, cert, req)
	c.m.Commence.WithLabelValues(result(err)).Inc()
	return env, err
}

// Progress implements httpapi.AgentService.
func (c countedAgents) Progress(ctx context.Context, cert string, from netip.Addr, p *api.Progress) (api.ProgressReply, error) {
	reply, err := c.Engine.Progress(ctx, cert, from, p)
	c.m.Announces.WithLabelValues(result(err)).Inc()
	if err == nil {
		c.m.HashFailures.Add(float64(len(p.AccusedHosts)))
	}
	return reply, err
}

// countedDecider is the engine as booting PCs reach it, with counters.
type countedDecider struct {
	netboot.Decider
	m *metrics.Set
}

// DecideBoot implements netboot.Decider.
func (c countedDecider) DecideBoot(ctx context.Context, r netboot.Request) netboot.Answer {
	a := c.Decider.DecideBoot(ctx, r)
	proto := string(r.Proto)
	if proto == "" {
		proto = string(decide.ProtoDHCP)
	}
	c.m.BootDecisions.WithLabelValues(a.Decision.Action.String(), proto).Inc()
	return a
}

// Metrics implements httpapi.Health.
func (a adminService) Metrics() http.Handler { return a.s.metrics.Handler() }

// Alive implements httpapi.Health.
func (a adminService) Alive() error { return a.s.upkeep.alive() }

// Ready implements httpapi.Health: sockets are bound before anybody can ask, so what remains can fail later.
func (a adminService) Ready(ctx context.Context) []api.Check {
	check := func(name string, err error, text string) api.Check {
		if err != nil {
			return api.Check{Name: name, Result: api.CheckFail, Text: err.Error()}
		}
		return api.Check{Name: name, Result: api.CheckOK, Text: text}
	}
	out := []api.Check{check("jobs", a.s.upkeep.alive(), "the job loop makes its rounds")}
	_, _, err := a.Counts(ctx)
	out = append(out, check("store", err, "readable"))
	for _, l := range []struct {
		name string
		addr string
	}{{"agents", a.s.agents.Addr().String()}, {"admin", a.s.admin.Addr().String()}} {
		out = append(out, check(l.name, nil, "listens on "+l.addr))
	}
	if a.s.boot != nil {
		out = append(out, check("netboot", nil, "answers on "+a.s.cfg.Interface+" in mode "+a.s.cfg.DHCP))
	}
	err = nil
	free := freeBytes(a.s.cfg.StateDir)
	if free >= 0 && free < lowBytes && !a.s.store.HasBallast() {
		err = errors.New("the disk of the state is full and its ballast is gone: make room")
	}
	return append(out, check("space", err, strconv.FormatInt(free, 10)+" bytes free for the state"))
}

// lowBytes is what the state needs free at least.
const lowBytes = 64 << 20
