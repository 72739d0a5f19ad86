package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/internal/units"
)

// windowFlags are the flags that say when a job may work and how it ends.
type windowFlags struct {
	at, until, overrun string
	policy             api.JobPolicy
}

func (w *windowFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.at, "at", "", "the window opens then: `TIME` (22:00, \"2026-11-22 22:00\") or duration (2h); default now")
	f.StringVar(&w.until, "until", "", "the window closes then: `TIME` after --at, or duration from there; default 4h. No host begins later")
	w.addPolicy(cmd)
}

// addPolicy adds all but the window itself.
func (w *windowFlags) addPolicy(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.policy.OnWindowEnd, "on-window-end", "", "half-written hosts at its end: finish (default) or hold (those that stopped wait for a person)")
	f.StringVar(&w.overrun, "max-overrun", "", "how long they may take to finish; default 2h, without --until 8h")
	f.IntVar(&w.policy.Canary, "canary", 0, "so many hosts go first; the others wait until those are CONFIRMED")
	f.StringVar(&w.policy.MaxFailures, "max-failures", "", "`N` or N% failed hosts pause the job")
	f.BoolVar(&w.policy.Wake, "wake", false, "switch the hosts on when it is their turn (Wake-on-LAN)")
}

// fill resolves what was typed; now is the present.
func (w *windowFlags) fill(now time.Time) (api.JobPolicy, error) {
	p, err := w.fillPolicy()
	if err != nil {
		return p, err
	}
	from := now
	if w.at != "" {
		t, err := units.ParseWhen(w.at, now)
		if err != nil {
			return p, usage(fmt.Errorf("--at %w", err))
		}
		p.NotBefore, from = t, t
	}
	if w.until != "" {
		t, err := units.ParseWhen(w.until, from)
		if err != nil {
			return p, usage(fmt.Errorf("--until %w", err))
		}
		p.NotAfter = t
	}
	return p, nil
}

// fillPolicy resolves all but the window itself.
func (w *windowFlags) fillPolicy() (api.JobPolicy, error) {
	p := w.policy
	if w.overrun != "" {
		d, err := time.ParseDuration(w.overrun)
		if err != nil || d < time.Second {
			return p, usage(fmt.Errorf("--max-overrun %q: use a duration like 2h or 45m", w.overrun))
		}
		p.MaxOverrunS = int64(d / time.Second)
	}
	return p, nil
}

// clock shows an instant to people: without the date when it is near.
func clock(t time.Time) string {
	t = t.Local()
	if d := time.Until(t); d > -20*time.Hour && d < 6*24*time.Hour {
		return t.Format("Mon 15:04")
	}
	return t.Format("Mon 2006-01-02 15:04")
}
