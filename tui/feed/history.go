package feed

import (
	"time"

	"labswarm/api"
	"labswarm/tui/plot"
	"labswarm/tui/snapshot"
)

const (
	logKept     = 500 // events
	ratesKept   = 600 // samples a job; then every two become one
	firstSample = time.Second
	ratesJobs   = 20 // jobs whose rates are kept
)

// history is what the console remembers itself: the newest events and the rates
// of jobs. The slices it hands out are never changed afterwards.
type history struct {
	log   []api.Event
	rates map[uint64]snapshot.Rates
}

// add appends an event.
func (h *history) add(e api.Event) {
	if n := len(h.log); n > 0 && e.Seq <= h.log[n-1].Seq {
		return
	}
	log := append(h.log, snapshot.CleanEvent(e)) // behind what any picture holds
	h.log = log[max(0, len(log)-logKept):]
}

// sample notes the rates of live jobs.
func (h *history) sample(jobs []api.Job, now time.Time) {
	next := make(map[uint64]snapshot.Rates, len(h.rates)+1)
	for id, r := range h.rates {
		next[id] = r
	}
	for i := range jobs {
		j := &jobs[i]
		if !j.Ended.IsZero() {
			continue
		}
		r, ok := next[j.ID]
		if !ok {
			if len(next) >= ratesJobs {
				drop(next)
			}
			r = snapshot.Rates{Begin: now, Every: firstSample}
		}
		next[j.ID] = extend(r, float64(j.RateBps), now)
	}
	h.rates = next
}

// drop forgets the oldest job.
func drop(m map[uint64]snapshot.Rates) {
	oldest := ^uint64(0)
	for id := range m {
		oldest = min(oldest, id)
	}
	delete(m, oldest)
}

// extend appends a sample when one is due; what was not heard in between is
// plot.NaN. A full row is halved: every two samples become their mean.
func extend(r snapshot.Rates, bps float64, now time.Time) snapshot.Rates {
	at := int(now.Sub(r.Begin) / r.Every)
	if at < len(r.Bps) {
		return r
	}
	if at >= 4*ratesKept { // the machine slept
		return snapshot.Rates{Begin: now, Every: firstSample, Bps: []float64{bps}}
	}
	row := r.Bps // appended to behind what any picture holds
	for len(row) < at {
		row = append(row, plot.NaN)
	}
	r.Bps = append(row, bps)
	for len(r.Bps) > ratesKept {
		r.Bps, r.Every = halve(r.Bps), 2*r.Every
	}
	return r
}

func halve(row []float64) []float64 {
	out := make([]float64, 0, len(row)/2+1)
	for i := 0; i < len(row); i += 2 {
		v := row[i]
		if i+1 < len(row) {
			switch w := row[i+1]; {
			case v != v: // NaN
				v = w
			case w == w:
				v = (v + w) / 2
			}
		}
		out = append(out, v)
	}
	return out
}
