package control

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/job"
)

const maxAhead = 366 * 24 * time.Hour // a window that opens later is a mistake

// window is a job's time, resolved.
type window struct {
	opens, closes time.Time
	overrun       time.Duration
}

// windowOf resolves a request's window; the request is known to be sensible
// but for now. opens is zero when the job may begin at once.
func windowOf(req *api.JobCreate, now time.Time) window {
	w := window{opens: req.NotBefore.UTC(), closes: req.NotAfter.UTC(), overrun: time.Duration(req.MaxOverrunS) * time.Second}
	if req.NotBefore.IsZero() {
		w.opens = time.Time{}
	}
	from := now.UTC()
	if w.opens.After(from) {
		from = w.opens
	}
	given := true
	switch {
	case !req.NotAfter.IsZero():
	case req.ExpiresInS > 0:
		w.closes = from.Add(time.Duration(req.ExpiresInS) * time.Second)
	default:
		w.closes, given = from.Add(job.DefaultLife), false
	}
	switch {
	case w.overrun > 0:
	case given:
		w.overrun = job.MaxOverrun
	default:
		w.overrun = job.LongOverrun
	}
	return w
}

// checkPolicy refuses windows and policies that make no sense.
func checkPolicy(req *api.JobCreate, now time.Time) error {
	p := req.JobPolicy
	at := func(t time.Time) string { return t.Local().Format("Mon 2006-01-02 15:04 MST") }
	w := windowOf(req, now)
	switch {
	case !p.NotAfter.IsZero() && req.ExpiresInS > 0:
		return badRequest(api.CodeUsage, "name either not_after or expires_in_s")
	case !w.closes.After(now):
		return badRequest(api.CodeUsage, "the window ends at %s, which is over", at(w.closes))
	case !w.opens.IsZero() && !w.closes.After(w.opens):
		return badRequest(api.CodeUsage, "the window ends at %s, before it opens at %s", at(w.closes), at(w.opens))
	case w.opens.After(now.Add(maxAhead)):
		return badRequest(api.CodeUsage, "the window opens at %s: at most a year ahead", at(w.opens))
	case w.closes.Sub(later(now, w.opens)) > maxLife:
		return badRequest(api.CodeUsage, "a window of %s: at most %s", w.closes.Sub(later(now, w.opens)).Round(time.Minute), maxLife)
	case p.MaxOverrunS < 0 || p.MaxOverrunS > int64(24*time.Hour/time.Second):
		return badRequest(api.CodeUsage, "max_overrun %d s: at most a day", p.MaxOverrunS)
	case p.OnWindowEnd != "" && p.OnWindowEnd != job.OnEndFinish && p.OnWindowEnd != job.OnEndHold:
		return badRequest(api.CodeUsage, "on_window_end %q: use finish or hold", p.OnWindowEnd)
	case p.Canary < 0:
		return badRequest(api.CodeUsage, "canary %d: use a number of hosts", p.Canary)
	case p.Canary > 0 && req.After == "poweroff":
		return badRequest(api.CodeUsage, "canary needs --after reboot: nobody sees a PC start that is switched off")
	}
	_, err := failureLimit(p.MaxFailures, 1)
	return err
}

// failureLimit reads "3" or "10%" of so many hosts; a share is at least one host.
func failureLimit(text string, hosts int) (int, error) {
	bad := badRequest(api.CodeUsage, "max_failures %q: use a number of hosts like 3, or a share like 10%%", text)
	num, share := strings.CutSuffix(strings.TrimSpace(text), "%")
	if num == "" && !share {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(num))
	switch {
	case err != nil || n < 1 || share && n > 100 || n > maxHostsPerJob:
		return 0, bad
	case share:
		return max(1, int(math.Floor(float64(hosts)*float64(n)/100))), nil
	}
	return n, nil
}

// steer is what the view shows of a job's policy; wait is Armable's.
func steer(j *job.Job, slots []job.Slot, now time.Time) api.JobSteer {
	s := api.JobSteer{NotBefore: j.NotBefore, OnWindowEnd: j.OnEnd, MaxOverrunS: int64(j.Overrun / time.Second), Canary: j.Canary, MaxFailures: j.MaxFailures,
		Wake: j.Wake, Paused: j.Paused, PausedBy: j.PausedBy, Schedule: j.Schedule}
	if s.OnWindowEnd == "" {
		s.OnWindowEnd = job.OnEndFinish
	}
	if j.Ended.IsZero() {
		_, s.Waiting = job.Armable(j, slots, now)
		if now.Before(j.NotBefore) && s.Waiting != "" {
			s.Waiting = fmt.Sprintf("its window opens at %s", j.NotBefore.Local().Format("Mon 15:04"))
		}
	}
	return s
}

// windowText says when a job may work, for the log.
func windowText(j *job.Job) string {
	from := "at once"
	if !j.NotBefore.IsZero() {
		from = j.NotBefore.Format(time.RFC3339)
	}
	return fmt.Sprintf(", window from %s to %s", from, j.NotAfter.Format(time.RFC3339))
}
