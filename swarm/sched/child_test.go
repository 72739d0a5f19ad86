package sched

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/swarm/window"
)

const (
	testPieces = 200
	testPiece  = 1 << 20
)

// rig is a Child with scripted sources: every dial works at once unless its
// source is down, and a source answers as many requests per tick as it may.
type rig struct {
	*Child
	t     *testing.T
	now   time.Time
	peers map[string]*scripted
	moves []string // changes of source, "from>to"
}

// scripted is one source.
type scripted struct {
	front int  // pieces it holds
	down  bool // cannot be connected to
	mute  bool // sends nothing
	wrong bool // sends wrong bytes
	rate  int  // pieces per tick, 0 = any number
	conns []*scriptedLink
}

type scriptedLink struct {
	*Link
	p     *scripted
	told  int
	asked []*Fetch
	ended error
}

func (l *scriptedLink) Request(f *Fetch, i int) {
	if i == 0 {
		l.asked = append(l.asked, f)
	}
}
func (l *scriptedLink) Close(why error)   { l.ended = why }
func (r *rig) Dial(*Source) bool          { return true }
func (r *rig) Reserve(*Fetch) bool        { return true }
func (r *rig) Release(*Fetch)             {}
func (r *rig) source(name string) *Source { return r.sources[r.index(name)] }

func (r *rig) index(name string) int {
	for i, s := range r.sources {
		if s.ID == name {
			return i
		}
	}
	r.t.Fatalf("no source %q", name)
	return -1
}

func newRig(t *testing.T, names ...string) *rig {
	r := &rig{t: t, now: time.Unix(1000, 0), peers: map[string]*scripted{}}
	r.Child = NewChild(r, window.NewSet(testPieces), testPiece)
	r.assign(names...)
	return r
}

func (r *rig) assign(names ...string) {
	var list []Peer
	for _, n := range names {
		if r.peers[n] == nil {
			r.peers[n] = &scripted{front: testPieces}
		}
		addr := netip.MustParseAddrPort(fmt.Sprintf("192.0.2.1:%d", 1000+int(n[0])))
		list = append(list, Peer{Addr: addr, ID: n, Server: n == "seed"})
	}
	r.SetSources(list, r.now)
}

// run plays d in ticks.
func (r *rig) run(d time.Duration) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(Tick)
		for _, sw := range r.Turn(r.now, true) {
			r.moves = append(r.moves, sw.From.ID+">"+sw.To.ID)
		}
		r.connections()
		for _, s := range r.sources {
			r.serve(r.peers[s.ID])
		}
	}
}

// connections ends what was closed and answers dials.
func (r *rig) connections() {
	for name, p := range r.peers {
		for _, l := range p.conns {
			if p.down && l.ended == nil {
				l.ended = fmt.Errorf("%s died", name)
			}
			if l.ended != nil && l.wire != nil {
				r.Detach(l.Link)
				r.Lost(l.src, l.ended.Error(), !errors.Is(l.ended, ErrRetired), r.now)
				l.wire = nil
			}
		}
	}
	for _, s := range r.sources {
		switch p := r.peers[s.ID]; {
		case !s.pending || s.link != nil:
		case p.down:
			r.Lost(s, "refused", true, r.now)
		default:
			l := &scriptedLink{p: p}
			l.Link = NewLink(s, l, testPieces, testPiece/4, 100)
			r.Attach(l.Link)
			l.Settle(Terms{Block: testPiece / 4, Reqq: 100})
			l.Unchoke()
			p.conns = append(p.conns, l)
		}
	}
}

// serve lets a source tell what it holds and answer requests.
func (r *rig) serve(p *scripted) {
	for _, l := range p.conns {
		if l.ended != nil || p.mute {
			continue
		}
		for ; l.told < p.front; l.told++ {
			l.Has(l.told)
		}
		r.Fill(l.Link, r.now)
		for n := 0; len(l.asked) > 0 && (p.rate == 0 && n < 20 || n < p.rate); n++ {
			f := l.asked[0]
			l.asked = l.asked[1:]
			l.Received(r.now)
			for i := range 4 {
				if _, complete := r.Landed(l.Link, f, i); complete && p.wrong {
					r.Wrong(f, r.now)
				} else if complete {
					r.Written(f, r.now)
				}
			}
			r.Fill(l.Link, r.now)
		}
	}
}

// TestRepair plays what happens to sources and looks at which one is used.
func TestRepair(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(r *rig)
		want []string // moves
		on   string   // source in use at the end
	}{
		{"quiet", func(r *rig) { r.peers["a"].rate = 1; r.run(20 * time.Second) }, nil, "a"},
		{"parent dies: the grandparent at once", func(r *rig) {
			r.peers["a"].rate = 1
			r.run(time.Second)
			r.peers["a"].down = true
			r.run(time.Second)
		}, []string{"a>b"}, "b"},
		{"parent mute with requests open: the grandparent after 1 s", func(r *rig) {
			r.peers["a"].rate = 1
			r.run(time.Second)
			r.peers["a"].mute, r.peers["b"].rate = true, 1
			r.run(1500 * time.Millisecond)
		}, []string{"a>b"}, "b"},
		{"parent mute, only the seed behind it: stalled after 4 s", func(r *rig) {
			r.assign("a", "seed")
			r.peers["a"].rate = 1
			r.run(time.Second)
			r.peers["a"].mute, r.peers["seed"].rate = true, 1
			r.run(3 * time.Second)
			if r.Parent() != "a" {
				r.t.Error("gone to the seed for a short pause")
			}
			r.run(2 * time.Second)
		}, []string{"a>seed"}, "seed"},
		{"parent pauses for 2 s: back to it", func(r *rig) {
			r.peers["a"].rate, r.peers["b"].rate = 1, 1
			r.run(time.Second)
			r.peers["a"].mute = true
			r.run(2 * time.Second)
			r.peers["a"].mute = false
			r.run(4 * time.Second)
		}, []string{"a>b", "b>a"}, "a"},
		{"parent has nothing more, the grandparent has: starving after 5 s", func(r *rig) {
			r.peers["a"].front, r.peers["b"].rate = 20, 1
			r.run(10 * time.Second)
		}, []string{"a>b"}, "b"},
		// Found by reading: the child never left a starving parent once the
		// grandparent had failed it before, nor looked beyond it.
		{"starving, the grandparent was lost before and is back", func(r *rig) {
			r.peers["a"].front, r.peers["b"].rate = 20, 1
			r.peers["b"].down = true
			r.run(2 * time.Second)
			r.peers["b"].down = false
			r.run(25 * time.Second)
		}, []string{"a>b"}, "b"},
		{"starving, the grandparent is dead: the seed", func(r *rig) {
			r.peers["a"].front, r.peers["seed"].rate = 20, 1
			r.peers["b"].down = true
			r.run(20 * time.Second)
		}, []string{"a>seed"}, "seed"},
		{"starving, the grandparent was found slow: slow is better than nothing", func(r *rig) {
			r.assign("a", "b")
			r.peers["a"].front, r.peers["b"].rate = 20, 1
			r.source("b").reject("slow", r.now)
			r.source("b").final = true
			r.run(10 * time.Second)
		}, []string{"a>b"}, "b"},
		// Found by the simulator: parent and grandparent were behind the child, as
		// the tracker had planned, and it did not look at the seed.
		{"parent and grandparent far behind: the seed", func(r *rig) {
			for i := range 50 {
				r.have.Add(i)
			}
			r.peers["a"].front, r.peers["b"].front, r.peers["seed"].rate = 20, 20, 1
			r.run(15 * time.Second)
		}, []string{"a>seed"}, "seed"},
		{"waiting for its own next piece like everybody: stay", func(r *rig) {
			r.peers["a"].front, r.peers["b"].front = 20, 20
			r.run(30 * time.Second)
		}, nil, "a"},
		{"wrong bytes: left for good", func(r *rig) {
			r.peers["a"].wrong, r.peers["a"].rate, r.peers["b"].rate = true, 1, 1
			r.run(10 * time.Second)
		}, []string{"a>b"}, "b"},
		// Found by the simulator: pieces that must not come from the parent counted
		// as something it has for us, and with the server away they waited up to
		// 20 s for it although an honest host was connected.
		{"one piece wrong, the server away: from the grandparent", func(r *rig) {
			r.peers["seed"].down = true
			r.peers["a"].wrong, r.peers["a"].front = true, 1
			r.peers["b"].front = 1
			r.run(5 * time.Second)
			if r.have.Count() != 1 {
				r.t.Errorf("%d pieces held after 5 s; want the one that both have", r.have.Count())
			}
		}, nil, "a"},
		{"parent comes back after it was lost", func(r *rig) {
			r.peers["a"].rate, r.peers["b"].rate = 1, 1
			r.run(time.Second)
			r.peers["a"].down = true
			r.run(time.Second)
			r.peers["a"].down = false
			r.run(5 * time.Second)
		}, []string{"a>b", "b>a"}, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "a", "b", "seed")
			c.play(r)
			if d := cmp.Diff(c.want, r.moves); d != "" {
				t.Errorf("moves (-want +got):\n%s", d)
			}
			if r.Parent() != c.on {
				t.Errorf("at the end fetching from %q, %d pieces held; want from %q", r.Parent(), r.have.Count(), c.on)
			}
		})
	}
}

// TestSlowLinkBlamesNobody: at the speed of its own link a host stays where it is.
func TestSlowLinkBlamesNobody(t *testing.T) {
	for _, c := range []struct {
		link int
		want int // switches
	}{{0, 1}, {45, 0}, {1000, 1}} {
		r := newRig(t, "a", "b", "seed")
		r.peers["a"].rate, r.peers["b"].front = 1, 20
		r.SetLink(c.link) // 1 MiB every 200 ms are 42 Mb/s
		for range 30 {
			r.run(Tick)
			r.peers["b"].front = min(r.peers["b"].front+5, testPieces)
		}
		if len(r.moves) != c.want {
			t.Errorf("link of %d Mb/s: moves %q; want %d", c.link, r.moves, c.want)
		}
	}
}

// TestRivalChanges: the count of another next source is no growth of the first.
func TestRivalChanges(t *testing.T) {
	r := newRig(t, "a", "b", "c", "seed")
	r.peers["a"].rate, r.peers["b"].front, r.peers["c"].front = 1, 60, 150
	r.run(4 * time.Second)
	r.peers["b"].down = true // from now on c is watched, which holds 90 more
	r.run(4 * time.Second)
	if len(r.moves) > 0 {
		t.Errorf("moves %q; want none: nobody is faster", r.moves)
	}
}

// TestReleased: complete, a child holds no connection and no request.
func TestReleased(t *testing.T) {
	r := newRig(t, "a", "b", "seed")
	r.run(10 * time.Second)
	if f := r.Figures(); !r.have.Full() || f.Links+f.Open+f.InFlight > 0 {
		t.Errorf("%d pieces of %d, %+v; want all and nothing open", r.have.Count(), testPieces, f)
	}
}

// TestNobodyIsLeft: when no source can be had, none waits out a long backoff.
func TestNobodyIsLeft(t *testing.T) {
	for away := 30 * time.Second; away < 50*time.Second; away += time.Second {
		r := newRig(t, "a", "seed")
		r.peers["a"].down, r.peers["seed"].down = true, true
		r.run(away)
		r.peers["seed"].down = false
		r.run(hungry + DialTime)
		if r.have.Count() == 0 {
			t.Errorf("no piece %v after the seed, away for %v, came back", hungry+DialTime, away)
		}
	}
}
