package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"labswarm/api"
)

const (
	tickEvery  = 300 * time.Millisecond // at most 4 a second per subscriber
	eventBatch = 500
)

// EventService holds the event log and the snapshots of progress.
type EventService interface {
	EventsSince(ctx context.Context, after uint64, limit int) ([]api.Event, error)
	LastEvent(ctx context.Context) (uint64, error)
	Tick(ctx context.Context) (api.Tick, error)
	Wake() (ch <-chan struct{}, cancel func())
}

func (a *Admin) eventRoutes() []Route {
	return []Route{
		{Method: "GET", Path: api.RouteAdminEv, Summary: "the event log and progress as server-sent events", Query: []string{"since", "last"}, Out: api.Event{}, h: a.events},
	}
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
	s.lag = a.lag
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
	if errors.Is(err, errLagged) {
		s.cut()
	}
	a.log.Debug("event stream ended", "err", err)
	return nil
}

// startAt reads ?since= or Last-Event-ID; ?last=N begins N events before the
// newest; without any the stream starts now.
func (a *Admin) startAt(r *http.Request) (uint64, error) {
	text := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("since"); q != "" {
		text = q
	}
	if text == "" {
		back, err := strconv.ParseUint(cmp.Or(r.URL.Query().Get("last"), "0"), 10, 64)
		if err != nil {
			return 0, fail(http.StatusBadRequest, api.CodeUsage, "last %q is no number of events", r.URL.Query().Get("last"))
		}
		newest, err := a.svc.LastEvent(r.Context())
		return newest - min(newest, back), err
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
