package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/schedule"
	"labswarm/server/store"
)

// checkOverlap refuses a schedule that wants a host while another one has it.
func (e *Engine) checkOverlap(tx store.Tx, s api.Schedule, p *schedule.Plan, cals map[string]api.Calendar, now time.Time) error {
	all, err := schedules(tx)
	if err != nil {
		return err
	}
	if len(all) >= maxSchedules {
		return conflict(api.CodeConflict, "there are %d schedules already", len(all))
	}
	mine, err := targets(tx, &s.Job)
	if err != nil {
		return err
	}
	for _, o := range all {
		if strings.EqualFold(o.Name, s.Name) {
			continue
		}
		theirs, err := targets(tx, &o.Job)
		op, perr := schedule.Compile(o, cals)
		if err != nil || perr != nil {
			continue // its room or calendar is gone
		}
		if why := clash(timed{s, p, mine}, timed{o, op, theirs}, now); why != "" {
			return conflict(api.CodeConflict, "%s", why)
		}
	}
	return nil
}

// timed is a schedule with its hosts of now.
type timed struct {
	s     api.Schedule
	plan  *schedule.Plan
	hosts []api.Host
}

// clash says when two schedules want the same host at the same time, "" = never.
func clash(a, b timed, now time.Time) string {
	shared := slices.IndexFunc(b.hosts, func(h api.Host) bool {
		return slices.ContainsFunc(a.hosts, func(m api.Host) bool { return m.Name == h.Name })
	})
	if shared < 0 {
		return ""
	}
	x, y, ok := schedule.Overlap(a.plan, b.plan, now)
	if !ok {
		return ""
	}
	form := "Mon 2006-01-02 15:04"
	return fmt.Sprintf("schedule %s overlaps %s: both want host %s, one from %s to %s, the other from %s to %s", a.s.Name, b.s.Name, b.hosts[shared].Name,
		x.Start.Format(form), x.End.Format("15:04 MST"), y.Start.Format(form), y.End.Format("15:04 MST"))
}

// ScheduleFaults lists why schedules that are not paused will fail, as things
// are now: calendars, images, rooms and hosts that are gone, and schedules that
// came to overlap because a host was moved. n counts the schedules.
func (e *Engine) ScheduleFaults(ctx context.Context) (n int, faults []string, err error) {
	now := time.Now()
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		n, faults = 0, nil
		all, err := schedules(tx)
		if err != nil {
			return err
		}
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		n = len(all)
		var good []timed
		for _, s := range all {
			if !s.Paused.IsZero() {
				continue
			}
			t := timed{s: s}
			img, err := e.image(&s.Job)
			if err == nil {
				err = usable(tx, img.Image)
			}
			if err == nil {
				t.hosts, err = targets(tx, &s.Job)
			}
			if err == nil {
				t.plan, err = schedule.Compile(s, cals)
			}
			if err != nil {
				faults = append(faults, fmt.Sprintf("schedule %s will fail: %v", s.Name, err))
				continue
			}
			for _, o := range good {
				if why := clash(t, o, now); why != "" {
					faults = append(faults, why)
				}
			}
			good = append(good, t)
		}
		return nil
	})
	return n, faults, err
}
