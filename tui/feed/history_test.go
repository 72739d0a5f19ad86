package feed

import (
	"math"
	"testing"
	"time"

	"labswarm/api"
)

func TestRates(t *testing.T) {
	begin := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	h := history{}
	jobs := []api.Job{{ID: 5, RateBps: 100}, {ID: 4, RateBps: 7, Ended: begin}}
	for i := range 1300 {
		if i >= 20 && i < 30 {
			continue // the server was away
		}
		for k := range 4 { // more ticks than samples
			h.sample(jobs, begin.Add(time.Duration(i)*time.Second+time.Duration(k)*200*time.Millisecond))
		}
	}
	r := h.rates[5]
	if len(h.rates) != 1 || len(r.Bps) > ratesKept || r.Every != 4*time.Second || !r.Begin.Equal(begin) {
		t.Fatalf("%d jobs, %d samples every %s from %s", len(h.rates), len(r.Bps), r.Every, r.Begin)
	}
	if got := time.Duration(len(r.Bps)) * r.Every; got < 1290*time.Second || got > 1310*time.Second {
		t.Errorf("the samples cover %s of 1300 s", got)
	}
	gaps := 0
	for _, v := range r.Bps {
		if math.IsNaN(v) {
			gaps++
		} else if v != 100 {
			t.Errorf("a sample of %v", v)
		}
	}
	if gaps != 2 {
		t.Errorf("%d samples of 4 s are missing, want the 2 of the server's absence", gaps)
	}
}

// TestPicturesKeepTheirHistory: what was handed out does not change.
func TestPicturesKeepTheirHistory(t *testing.T) {
	h := history{}
	for i := range 3 * logKept {
		h.add(api.Event{Seq: uint64(i + 1)})
		h.add(api.Event{Seq: uint64(i)}) // seen already
		if i == logKept {
			old := h.log
			defer func() {
				if old[0].Seq != 2 || old[len(old)-1].Seq != logKept+1 {
					t.Errorf("an old picture's log became %d .. %d", old[0].Seq, old[len(old)-1].Seq)
				}
			}()
		}
	}
	if len(h.log) != logKept || h.log[logKept-1].Seq != 3*logKept {
		t.Errorf("%d events to %d", len(h.log), h.log[len(h.log)-1].Seq)
	}
}
