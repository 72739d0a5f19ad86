package httpapi

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// sources limits requests per source address. The table is bounded: when it is
// full of fresh addresses it is emptied, and the limit over all still holds.
type sources struct {
	perS  rate.Limit
	burst int
	max   int

	mu sync.Mutex
	by map[netip.Addr]*rate.Limiter
}

func newSources(perS float64, burst, max int) *sources {
	return &sources{perS: rate.Limit(perS), burst: burst, max: max, by: map[netip.Addr]*rate.Limiter{}}
}

func (s *sources) allow(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.by[a]
	if l == nil {
		if len(s.by) >= s.max {
			clear(s.by)
		}
		l = rate.NewLimiter(s.perS, s.burst)
		s.by[a] = l
	}
	return l.Allow()
}
