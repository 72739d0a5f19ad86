package registry

import "time"

const (
	meterSpan = 30 * time.Second        // of reports that a piece time is taken from
	meterMin  = 20 * time.Second        // below which nothing is said
	meterStep = time.Second             // closest distance of two samples
	shortSpan = 1500 * time.Millisecond // least time that Host.Lately covers: reports come every 1.6 to 2.4 s
)

// meter measures how long a host needs for a piece when it does not wait for
// its parent.
type meter struct {
	parent  string
	samples []sample
}

// sample is one report.
type sample struct {
	at      time.Time
	have    int
	waiting bool
	brake   string
}

// add takes in a report. Another parent, or fewer pieces, begins anew; the time of
// connecting to the first parent counts as its.
func (m *meter) add(s sample, parent string) {
	n := len(m.samples)
	if m.parent == "" {
		m.parent = parent
	}
	switch {
	case parent != m.parent || n > 0 && s.have < m.samples[n-1].have:
		m.parent, m.samples = parent, append(m.samples[:0], s)
		return
	case n > 0 && s.at.Sub(m.samples[n-1].at) < meterStep:
		return
	}
	m.samples = append(m.samples, s)
	for len(m.samples) > 2 && s.at.Sub(m.samples[1].at) >= meterSpan {
		m.samples = m.samples[1:]
	}
}

// pieceTime is the mean per piece over the time in which the host did not wait,
// 0 when that is too short. Without a single piece it is that time itself.
func (m *meter) pieceTime() time.Duration {
	var busy time.Duration
	gained := 0
	for i := 1; i < len(m.samples); i++ {
		a, b := m.samples[i-1], m.samples[i]
		if !b.waiting {
			busy += b.at.Sub(a.at)
			gained += b.have - a.have
		}
	}
	if busy < meterMin {
		return 0
	}
	return busy / time.Duration(max(gained, 1))
}

// lately is the newest time of at least shortSpan, and the pieces gained in it; 0
// when there is none yet.
func (m *meter) lately() (span time.Duration, gained int) {
	for i := len(m.samples) - 2; i >= 0; i-- {
		a, b := m.samples[i], m.samples[len(m.samples)-1]
		if span = b.at.Sub(a.at); span >= shortSpan {
			return span, b.have - a.have
		}
	}
	return 0, 0
}

// brake is what the host named in two thirds of the reports, "" when it named
// nothing so often or reports are too few.
func (m *meter) brake() string {
	if n := len(m.samples); n < 2 || m.samples[n-1].at.Sub(m.samples[0].at) < meterMin {
		return ""
	}
	count := map[string]int{}
	for _, s := range m.samples {
		count[s.brake]++
		if s.brake != "" && count[s.brake]*3 >= len(m.samples)*2 {
			return s.brake
		}
	}
	return ""
}
