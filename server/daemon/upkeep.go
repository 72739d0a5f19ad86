package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	upkeepEvery  = 2 * time.Second
	ballastEvery = time.Minute
	// beatLate is the age of the job loop's last round at which the server counts as stuck. A round takes milliseconds; a
	// snapshot of a large state on a slow disk takes seconds.
	beatLate = 20 * time.Second
)

// upkeep is what a server does beside its work: it tells systemd how it goes, keeps the ballast, takes over reloads.
type upkeep struct {
	s        *server
	beatAt   atomic.Int64 // of the job loop's last round, UnixNano
	watchdog time.Duration
	toldAt   atomic.Int64 // systemd was told last, UnixNano
	lost     atomic.Bool  // the ballast went for an update
	reports  reports
	events   uint64 // number of the last that was counted
}

// beat is called by the job loop after each round. A loop that hangs is not alive, whatever timers still run: so systemd
// hears of it from here only.
func (u *upkeep) beat() {
	now := time.Now()
	u.beatAt.Store(now.UnixNano())
	if u.watchdog > 0 && now.UnixNano()-u.toldAt.Load() >= int64(u.watchdog/3) {
		u.toldAt.Store(now.UnixNano())
		tellSystemd(u.s.log, sd.SdNotifyWatchdog)
	}
}

// alive is nil while the job loop makes its rounds.
func (u *upkeep) alive() error {
	if age := time.Since(time.Unix(0, u.beatAt.Load())); age > beatLate {
		return fmt.Errorf("the job loop has made no round for %s", age.Round(time.Second))
	}
	return nil
}

// openUpkeep makes the ballast and asks systemd for its patience. A disk without room for ballast is no reason not to start.
func (s *server) openUpkeep() {
	u := &upkeep{s: s, reports: reports{s: s, rings: map[uint64]*ring{}, saved: map[uint64]bool{}}}
	u.beatAt.Store(time.Now().UnixNano())
	s.upkeep = u
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("the watchdog of systemd is not served", "err", err)
	}
	u.watchdog = every
	path := filepath.Join(s.cfg.StateDir, "ballast")
	if err := s.store.SetBallast(path, store.BallastBytes, func() { u.lost.Store(true) }); err != nil {
		s.log.Warn("no ballast: a full disk will stop transitions", "err", err)
	}
}

// Run is the upkeep until ctx ends; nil then.
func (u *upkeep) Run(ctx context.Context) error {
	t, fill := time.NewTicker(upkeepEvery), time.NewTicker(ballastEvery)
	defer t.Stop()
	defer fill.Stop()
	last := u.tell(ctx, "")
	for {
		select {
		case <-ctx.Done():
			return nil
		case cfg := <-u.s.reload:
			u.s.adopt(cfg)
		case <-fill.C:
			if err := u.s.store.FillBallast(); err != nil {
				u.s.log.Warn("ballast", "err", err)
			}
		case <-t.C:
			if u.lost.Swap(false) {
				u.s.engine.Note(ctx, api.Event{Level: "error", Code: "disk_low",
					Text: "the disk of the state is full; its ballast file was given up so that running jobs can go on: make room now"})
			}
			last = u.tell(ctx, last)
		}
	}
}

// tell samples the figures and says to systemd how jobs go, if that has changed; it returns what was said.
func (u *upkeep) tell(ctx context.Context, last string) string {
	tick, err := u.s.engine.Look(ctx, time.Now())
	if err != nil {
		return last // the job loop tells it
	}
	u.s.metrics.Sample(tick)
	u.countEvents(ctx)
	u.reports.look(ctx, tick)
	text := statusLine(tick.Jobs)
	if text != last {
		tellSystemd(u.s.log, "STATUS="+text)
	}
	return text
}

// countEvents counts what only the event log tells.
func (u *upkeep) countEvents(ctx context.Context) {
	if u.events == 0 {
		// Older ones were counted by the process before. An error is one of the store, which the job loop tells.
		u.events, _ = u.s.engine.LastEvent(ctx)
		return
	}
	list, err := u.s.engine.EventsSince(ctx, u.events, 1000)
	if err != nil {
		return
	}
	for _, e := range list {
		u.events = e.Seq
		if e.Code == "image_damaged" {
			u.s.metrics.ScrubErrors.Inc()
		}
	}
}

// adopt takes over a reloaded configuration's live settings.
func (s *server) adopt(cfg Config) {
	s.keeper.SetScrub(cfg.ScrubEvery, cfg.ScrubBps)
	s.notify.Configure(cfg.Notify)
}

// statusLine is what `systemctl status` shows: "job 118: 27/40 done".
func statusLine(jobs []api.Job) string {
	var parts []string
	for _, j := range jobs {
		if !j.Ended.IsZero() {
			continue
		}
		done := 0
		for _, s := range j.Slots {
			if s.State.Good() {
				done++
			}
		}
		parts = append(parts, fmt.Sprintf("job %d: %d/%d done", j.ID, done, len(j.Slots)))
	}
	if len(parts) == 0 {
		return "no job runs"
	}
	return strings.Join(parts, ", ")
}
