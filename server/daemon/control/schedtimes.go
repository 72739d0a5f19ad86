package control

import (
	"context"
	"time"

	"labswarm/server/store"
)

// ScheduleTime is when a schedule runs next and when a run of it last ended
// with every host right; zero = never.
type ScheduleTime struct {
	Name          string
	Next, Success time.Time
}

// ScheduleTimes is for figures: it is asked often.
func (e *Engine) ScheduleTimes(ctx context.Context) (out []ScheduleTime, err error) {
	now := time.Now()
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = nil
		all, err := schedules(tx)
		if err != nil {
			return err
		}
		cals, err := calendars(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			t := ScheduleTime{Name: s.Name}
			i, err := e.info(tx, s, cals, now)
			if err != nil {
				return err
			}
			for _, n := range i.Next {
				if n.Skip == "" {
					t.Next = n.Start
					break
				}
			}
			if _, err := getJSON(tx, keySchedOK(s.Name), &t.Success); err != nil {
				return err
			}
			out = append(out, t)
		}
		return nil
	})
	return out, err
}
