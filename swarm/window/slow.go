package window

import "time"

// Span is the shortest time over which rates are compared.
const Span = 2500 * time.Millisecond

const (
	minStarve    = 5 * time.Second // shortest wait without a piece that counts as starving
	costlyStarve = 2 * minStarve   // the same when the seed would have to step in
	minGrowth    = 8               // pieces; growth below this proves nothing
	onTheWay     = 4               // pieces that a parent may hold more than it has sent (Depth)
	keepTime     = 10 * time.Second
	barrenTime   = time.Minute // the rate rules rest after a switch that brought nothing, unless the rate rises
	keepSamples  = 128
)

// rules say how much too slow for how long a parent may be. A computer that
// hesitates for a second or two is normal, above all while it boots. A switch to
// the seed costs the whole swarm, so it takes longest.
var rules = []struct {
	span   time.Duration
	factor int  // so many times slower than is possible
	costly bool // also when the next source is the seed
}{
	{1500 * time.Millisecond, 6, false},
	{Span, 4, false},
	{6 * time.Second, 2, false},
	{keepTime, 4, true},
}

// Sample is what a child sees at one moment.
type Sample struct {
	At         time.Time
	Have       int   // pieces we hold
	Parent     int   // pieces the parent holds
	Other      int   // pieces the next source (the grandparent) holds; -1 when unknown or all of them
	Rx         int64 // payload bytes received so far, from anybody
	Gives      bool  // the parent holds a missing piece and does not choke us
	Far        bool  // the parent holds a whole window of missing pieces or more
	OtherGives bool  // the next source holds a missing piece and does not choke us
	Bound      bool  // we could not ask for more: our own disk is the brake
	Costly     bool  // the next source is the seed, whose line the whole swarm shares
}

// Verdict says why a parent should be left; the zero value is to stay.
type Verdict string

// The verdicts.
const (
	Stay     Verdict = ""
	Overtook Verdict = "slow: the next source grew several times as fast"
	Delivers Verdict = "slow: it has the pieces but delivers far below the best rate"
	Starving Verdict = "it has nothing for us while the next source has"
	// Barren is the verdict on a switch by a rate rule, once: it brought nothing,
	// the source that was left should be taken again.
	Barren Verdict = "the switch brought nothing: this host itself is the brake"
)

// Monitor judges a parent from samples taken every 100 to 500 ms. It compares
// rates, never lag: a child that lags behind its grandparent by what the socket
// buffers hold is healthy, and a rule by lag makes a star of the chain
// (swarm.md section 3). The zero value is ready.
type Monitor struct {
	samples  []Sample
	best     int64 // bytes per second, highest rate over Span so far
	trial    int64 // rate before the last switch by a rule, which is not judged yet; 0 = none
	barren   int64 // the rate when a switch brought nothing: we are the slow one; 0 = no such switch
	barrenAt time.Time
	piece    time.Time     // when the last piece came
	interval time.Duration // smoothed time between two pieces
	starved  time.Time     // since when the starving condition holds, zero = it does not
}

// Reset forgets the history, after a change of parent. What this host is
// capable of stays.
func (m *Monitor) Reset() {
	m.samples = m.samples[:0]
	m.starved = time.Time{}
}

// OtherChanged says that from now on Sample.Other is the count of another next
// source: how it grew is not known yet.
func (m *Monitor) OtherChanged() {
	for i := range m.samples {
		m.samples[i].Other = -1
	}
}

// Switched is Reset after a switch caused by a rate rule. If the rate does not
// rise by half within Span, the brake is this host itself: the verdict is
// Barren, and the rate rules rest until the rate has risen, or for a minute. A
// slow host must not climb up the whole chain and take a part of everybody's
// link. Another parent by the tracker's word changes nothing of that.
func (m *Monitor) Switched() {
	m.trial = max(rate(m.last(Span)), 1)
	m.Reset()
}

// Add takes a sample and returns the verdict on the present parent.
func (m *Monitor) Add(s Sample) Verdict {
	if n := len(m.samples); n > 0 && !m.samples[n-1].Gives && s.Rx == m.samples[0].Rx {
		m.samples = m.samples[:0] // nothing has come yet as there was nothing: rates count from the first piece on
	}
	m.notePieces(s)
	m.samples = append(m.samples, s)
	for len(m.samples) > 2 && s.At.Sub(m.samples[1].At) >= keepTime || len(m.samples) > keepSamples {
		m.samples = m.samples[1:]
	}
	if m.starving(s) {
		return Starving
	}
	h := m.last(Span)
	if s.At.Sub(h[0].At) < Span {
		if m.trial > 0 {
			return Stay
		}
		return m.byRate()
	}
	now := rate(h)
	if old := m.trial; old > 0 {
		m.trial = 0
		if now < old+old/2 {
			m.barren, m.barrenAt = old, s.At
			return Barren
		}
	}
	if m.barren > 0 && (now >= m.barren+m.barren/2 || s.At.Sub(m.barrenAt) > barrenTime) {
		m.barren = 0
	}
	v := m.byRate()
	m.best = max(m.best, now)
	return v
}

// last is the newest part of the history that covers d, or all of it.
func (m *Monitor) last(d time.Duration) []Sample {
	for i := len(m.samples) - 1; i > 0; i-- {
		if m.samples[len(m.samples)-1].At.Sub(m.samples[i].At) >= d {
			return m.samples[i:]
		}
	}
	return m.samples
}

// rate is the mean over h in bytes per second.
func rate(h []Sample) int64 {
	if len(h) < 2 {
		return 0
	}
	a, b := h[0], h[len(h)-1]
	d := b.At.Sub(a.At).Seconds()
	if d <= 0 {
		return 0
	}
	return int64(float64(b.Rx-a.Rx) / d)
}

// byRate applies the rules about rates.
func (m *Monitor) byRate() Verdict {
	if m.barren > 0 {
		return Stay
	}
	for _, r := range rules {
		h := m.last(r.span)
		first, last := h[0], h[len(h)-1]
		if last.At.Sub(first.At) < r.span || last.Costly && !r.costly {
			continue
		}
		far, bound := true, false
		for _, s := range h {
			far = far && s.Far
			bound = bound || s.Bound // nobody could have been faster for us
		}
		if bound {
			continue
		}
		if far && rate(h) < m.best/int64(r.factor) {
			return Delivers
		}
		theirs, mine := last.Other-first.Other, last.Have-first.Have
		if got := last.Parent - first.Parent; 2*got >= theirs && 2*mine >= min(got, last.Parent-first.Have)-onTheWay {
			continue // the parent is as fast and passes it on; it only began behind us, and was catching up
		}
		if first.Other >= 0 && last.Other > last.Have && theirs >= minGrowth && theirs > r.factor*mine {
			return Overtook
		}
	}
	return Stay
}

// notePieces keeps the usual time between two pieces.
func (m *Monitor) notePieces(s Sample) {
	if len(m.samples) == 0 {
		m.piece = s.At
		return
	}
	d := s.Have - m.samples[len(m.samples)-1].Have
	if d <= 0 {
		return
	}
	each := s.At.Sub(m.piece) / time.Duration(d)
	if m.interval == 0 {
		m.interval = each
	}
	m.interval = (m.interval*3 + each) / 4
	m.piece = s.At
	m.starved = time.Time{}
}

// starving: for a long time, measured in our own piece times, the parent had
// nothing for us and the next source had. A parent that only waits for its own
// next piece is not slow: then the next source runs dry as well, or a piece
// comes and the clock restarts.
func (m *Monitor) starving(s Sample) bool {
	if s.Bound || s.Gives || !s.OtherGives {
		m.starved = time.Time{}
		return false
	}
	if m.starved.IsZero() {
		m.starved = s.At
	}
	least := minStarve
	if s.Costly {
		least = costlyStarve
	}
	return s.At.Sub(m.starved) > max(least, 4*m.interval)
}
