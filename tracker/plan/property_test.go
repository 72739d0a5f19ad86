package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/tracker/registry"
)

var roomNames = []string{"A", "B", "C", "D"}

// world is a swarm whose history is drawn at random.
type world struct {
	*rapid.T
	seeds    []registry.Seed
	hosts    []registry.Host
	expected int
	now      time.Time
	plan     []Assignment
	old      []Assignment // the plan before
	order    uint64
	moved    bool   // the last event may change where chains begin
	quiet    bool   // nobody is late, slow or accused so far
	event    string // the last one
}

func (w *world) view() View {
	return View{Pieces: pieces, PieceLen: 1 << 20, Now: w.now, Seeds: w.seeds, Hosts: w.hosts, Prev: w.plan, Expected: w.expected}
}

func (w *world) pick(what string, ok func(*registry.Host) bool) *registry.Host {
	var some []*registry.Host
	for i := range w.hosts {
		if ok(&w.hosts[i]) {
			some = append(some, &w.hosts[i])
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(w.T, what)]
}

func alive(h *registry.Host) bool      { return h.Alive && !h.Released }
func unfinished(h *registry.Host) bool { return h.Alive && !h.Done }

func newWorld(t *rapid.T) *world {
	w := &world{T: t, quiet: true, now: time.Unix(1000, 0)}
	w.seeds = []registry.Seed{{ID: "server", LinkMbps: rapid.SampledFrom([]int{0, 1000, 2500, 10_000}).Draw(t, "seed link")}}
	for _, room := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"A", "B", ""}), 0, 2, rapid.ID).Draw(t, "relays") {
		w.seeds = append(w.seeds, registry.Seed{ID: "relay" + room, Room: room, LinkMbps: 1000})
	}
	return w
}

// join adds a host, usually with nothing and a gigabit link.
func (w *world) join() {
	w.order++
	h := registry.Host{ID: fmt.Sprintf("h%d", w.order), Order: w.order, Alive: true, LastSeen: time.Unix(0, 0),
		Room: rapid.SampledFrom(roomNames).Draw(w.T, "room"), LinkMbps: 1000}
	if rapid.IntRange(0, 9).Draw(w.T, "odd") == 0 {
		w.quiet = false
		w.moved = true // what is usual may change
		h.LinkMbps = rapid.SampledFrom([]int{0, 100, 1000, 2500}).Draw(w.T, "link")
		h.Have = rapid.SampledFrom([]int{0, 200, 700, pieces}).Draw(w.T, "kept")
		h.Front, h.Done = h.Have, h.Have == pieces
	}
	w.hosts = append(w.hosts, h)
}

// progress lets the chains flow: nobody overtakes its parent, but reports are
// of different ages.
func (w *world) progress() {
	step := rapid.IntRange(1, 300).Draw(w.T, "step")
	if step > pieces/50 {
		w.quiet = false // who joins now is late
	}
	most := map[string]int{}
	for _, s := range w.seeds {
		most[s.ID] = pieces
	}
	for _, a := range w.plan {
		i := slices.IndexFunc(w.hosts, func(h registry.Host) bool { return h.ID == a.Host })
		h := &w.hosts[i]
		up, ok := most[a.Parent]
		if h.Done || !ok {
			most[h.ID] = h.Have
			continue
		}
		h.Have = max(h.Have, min(up, h.Have+step))
		most[h.ID] = h.Have
		h.Front, h.Done, h.Parent = h.Have, h.Have == pieces, a.Parent
		h.PieceTime = time.Duration(rapid.SampledFrom([]int{0, 9, 10, 11, 80}).Draw(w.T, "piece time")) * time.Millisecond
		if h.PieceTime > 50*time.Millisecond {
			w.quiet = false
		}
		h.Brake = rapid.SampledFrom([]string{"", "", "", api.BrakeDisk}).Draw(w.T, "brake")
		w.lately(h)
	}
}

// lately draws what a host gained in the last 2 s: of 250 at a gigabit.
func (w *world) lately(h *registry.Host) {
	h.LastSeen = w.now
	h.Lately = rapid.SampledFrom([]time.Duration{0, 2 * time.Second, 2 * time.Second}).Draw(w.T, "lately")
	h.Gained = rapid.SampledFrom([]int{250, 250, 240, 20, 0}).Draw(w.T, "gained")
	if h.Lately > 0 && h.Gained < 100 {
		w.quiet = false
	}
}

// step draws and applies one event.
func (w *world) step() {
	w.moved = false
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{0, 500 * time.Millisecond, 3 * time.Second, 40 * time.Second}).Draw(w.T, "passed"))
	w.event = rapid.SampledFrom([]string{"join", "join", "join", "progress", "progress", "death", "return", "reject", "accuse", "release", "readback", "seed", "expect"}).Draw(w.T, "event")
	switch w.event {
	case "join":
		w.join()
	case "progress":
		w.progress()
	case "death":
		if h := w.pick("dead", alive); h != nil {
			h.Alive = false
			w.moved = true // one of another link than usual may have gone
		}
	case "return":
		if h := w.pick("returned", func(h *registry.Host) bool { return !h.Alive }); h != nil {
			w.order++
			h.Alive, h.Order, h.Parent, h.Rejected, h.PieceTime, h.Released = true, w.order, "", nil, 0, false
			if rapid.Bool().Draw(w.T, "empty") {
				h.Have, h.Front, h.Done = 0, 0, false
			}
			w.quiet, w.moved = false, true
		}
	case "reject":
		if h := w.pick("child", unfinished); h != nil {
			for _, a := range w.plan {
				if a.Host == h.ID {
					h.Rejected, h.Blamed = []string{a.Parent}, append(h.Blamed, a.Parent)
				}
			}
			w.quiet = false
		}
	case "accuse":
		from, to := w.pick("accuser", alive), w.pick("accused", alive)
		if from != nil && from != to && !slices.Contains(to.AccusedBy, from.ID) {
			to.AccusedBy = append(to.AccusedBy, from.ID)
			w.quiet, w.moved = false, true
		}
	case "release":
		for _, a := range w.plan {
			if a.Release {
				w.hosts[slices.IndexFunc(w.hosts, func(h registry.Host) bool { return h.ID == a.Host })].Released = true
			}
		}
	case "readback":
		if h := w.pick("bad read-back", func(h *registry.Host) bool { return h.Alive && h.Done }); h != nil {
			h.Have, h.Front, h.Done, h.Released = pieces-1, 0, false, false
			w.quiet, w.moved = false, true
		}
	case "seed":
		w.moved = true
		w.quiet = false
		if len(w.seeds) > 1 && rapid.Bool().Draw(w.T, "gone") {
			w.seeds = w.seeds[:len(w.seeds)-1]
		} else {
			w.seeds[0].LinkMbps = rapid.SampledFrom([]int{0, 1000, 10_000}).Draw(w.T, "seed link")
		}
	case "expect":
		w.expected = rapid.IntRange(0, 2).Draw(w.T, "expected")
	}
}

// TestHistories draws histories of swarms and checks every plan in them.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			chains := w.allowedAll()
			w.step()
			w.moved = w.moved || !slices.Equal(chains, w.allowedAll())
			w.old = w.plan
			w.plan = Plan(w.view())
			w.check()
			if !w.moved {
				w.checkStable()
			}
			if d := cmp.Diff(w.plan, Plan(w.view())); d != "" {
				t.Fatalf("after %s: not stable when nothing changes (-first +second):\n%s", w.event, d)
			}
		}
	})
}

// arbitrary is a state that no history may lead to: the planner must not break
// its own rules whatever hosts say.
func (w *world) arbitrary() {
	w.quiet = false
	anyID := rapid.Custom(func(t *rapid.T) string {
		if k := rapid.IntRange(0, len(w.hosts)).Draw(t, "id"); k > 0 {
			return fmt.Sprintf("h%d", k)
		}
		return "server"
	})
	for i := range w.hosts {
		h := &w.hosts[i]
		if rapid.IntRange(0, 2).Draw(w.T, "change") > 0 {
			continue
		}
		h.Have = rapid.SampledFrom([]int{0, 3, 100, 110, 500, 999, pieces}).Draw(w.T, "have")
		h.Front, h.Done = h.Have, h.Have == pieces
		h.Alive = rapid.IntRange(0, 5).Draw(w.T, "alive") > 0
		h.Released = h.Done && rapid.Bool().Draw(w.T, "released")
		h.Parent = rapid.OneOf(rapid.Just(""), anyID).Draw(w.T, "parent")
		h.Rejected = rapid.SliceOfN(anyID, 0, 2).Draw(w.T, "rejected")
		h.Blamed = rapid.SliceOfNDistinct(anyID, 0, 3, rapid.ID).Draw(w.T, "blamed")
		h.AccusedBy = rapid.SliceOfNDistinct(anyID, 0, 2, rapid.ID).Draw(w.T, "accused by")
		h.PieceTime = time.Duration(rapid.IntRange(0, 100).Draw(w.T, "piece time")) * time.Millisecond
		h.Room = rapid.SampledFrom(roomNames).Draw(w.T, "room")
		w.lately(h)
	}
}

func TestArbitraryStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 25).Draw(t, "n") {
			w.join()
		}
		for range 4 {
			w.arbitrary()
			w.old = w.plan
			w.plan = Plan(w.view())
			w.check()
			if d := cmp.Diff(w.plan, Plan(w.view())); d != "" {
				t.Fatalf("not stable when nothing changes (-first +second):\n%s", d)
			}
		}
	})
}

func (w *world) failf(format string, args ...any) {
	w.Helper()
	w.Fatalf("after %s: %s\nplan %v\nbefore %v", w.event, fmt.Sprintf(format, args...), lines(w.plan), lines(w.old))
}

// check asserts what must hold for every plan.
func (w *world) check() {
	byID := map[string]*registry.Host{}
	taking := 0
	for i := range w.hosts {
		byID[w.hosts[i].ID] = &w.hosts[i]
		if w.hosts[i].Alive {
			taking++
		}
	}
	if len(w.plan) != taking {
		w.failf("%d assignments for %d living hosts", len(w.plan), taking)
	}
	plan := map[string]Assignment{}
	full := map[string]int{}
	entries := map[string]int{}
	for _, a := range w.plan {
		plan[a.Host] = a
		h := byID[a.Host]
		if a.Leaf != (a.Cause != "") || a.Slots < 1 || a.Release && !h.Done {
			w.failf("%+v of %+v", a, *h)
		}
		switch up := byID[a.Parent]; {
		case h.Released && h.Done:
		case !a.Leaf:
			full[a.Parent]++
			if up == nil || up.Room != h.Room {
				entries[h.Room]++
			}
		}
	}
	for up, n := range full {
		if i := slices.IndexFunc(w.seeds, func(s registry.Seed) bool { return s.ID == up }); i < 0 && n > 1 || i >= 0 && n > w.allowed(i) {
			w.failf("%s feeds %d chains", up, n)
		}
	}
	if w.quiet {
		for room, n := range entries {
			if n > 1 {
				w.failf("room %s is entered %d times in a quiet swarm", room, n)
			}
		}
	}
	for _, a := range w.plan {
		w.checkOne(byID, plan, a)
	}
	w.checkLeaves(byID)
}

// allowed computes the number of root chains a seed may feed, by the book.
func (w *world) allowed(i int) int {
	var links []int
	for _, h := range w.hosts {
		if h.Alive && h.LinkMbps > 0 {
			links = append(links, h.LinkMbps)
		}
	}
	if len(links) == 0 {
		return 1
	}
	slices.Sort(links)
	return max(1, w.seeds[i].LinkMbps/links[len(links)/2])
}

func (w *world) allowedAll() (n []int) {
	for i := range w.seeds {
		n = append(n, w.allowed(i))
	}
	return n
}

// checkOne asserts what must hold for one host's assignment.
func (w *world) checkOne(byID map[string]*registry.Host, plan map[string]Assignment, a Assignment) {
	all := append([]string{a.Parent}, a.Fallbacks...)
	if last := all[len(all)-1]; !contains(all, "server") || last != "server" && a.Parent != "server" && !slowCause(a.Cause) {
		w.failf("%s: sources %v do not end with the server", a.Host, all)
	}
	isSeed := func(id string) bool {
		return slices.ContainsFunc(w.seeds, func(s registry.Seed) bool { return s.ID == id })
	}
	seen := map[string]bool{a.Host: true}
	for _, id := range all {
		if seen[id] {
			w.failf("%s: %s twice, or itself, in %v", a.Host, id, all)
		}
		seen[id] = true
		if isSeed(id) {
			continue
		}
		switch h, up := byID[id], plan[id]; {
		case !h.Alive || h.Released && h.Done || up.Release && !byID[a.Host].Done:
			w.failf("%s: source %s is dead or leaving", a.Host, id)
		case up.Leaf && !a.Leaf:
			w.failf("%s is no leaf and has the leaf %s as source", a.Host, id)
		case up.Leaf && up.Cause != CauseLink && !(up.Cause == CauseTrial && a.Cause == CauseTrial):
			w.failf("%s: source %s is a leaf for %s", a.Host, id, up.Cause)
		case len(h.AccusedBy) >= 2:
			w.failf("%s: source %s is revoked", a.Host, id)
		}
	}
	for id, steps := a.Parent, 0; !isSeed(id); id = plan[id].Parent { // acyclic, reaches a seed
		if steps++; steps > len(plan) {
			w.failf("%s does not reach a seed", a.Host)
		}
	}
}

// checkLeaves asserts, for a plan made from nothing, that of the leaf chains
// behind one host all but the first had no other host to go to.
func (w *world) checkLeaves(byID map[string]*registry.Host) {
	v := w.view()
	v.Prev = nil
	as := Plan(v)
	leaf, kids, proven := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, a := range as {
		leaf[a.Host] = a.Leaf
		proven[a.Parent] = proven[a.Parent] || provenSlow(a.Cause)
		if a.Leaf {
			kids[a.Parent]++
		}
	}
	choosy := map[string]int{}
	for _, a := range as {
		if !a.Leaf || byID[a.Parent] == nil || leaf[a.Parent] {
			continue
		}
		if slices.ContainsFunc(as, func(b Assignment) bool {
			h, up := byID[a.Host], byID[b.Host]
			return !b.Leaf && !(up.Released && up.Done) && kids[b.Host] == 0 && (up.Done || up.Have >= h.Have) && !shuns(&seat{Host: h}, &seat{Host: up})
		}) {
			choosy[a.Parent]++
		}
	}
	for up, n := range choosy {
		if n > 2 || n > 1 && !proven[up] {
			w.failf("made from nothing: %s feeds %d leaf chains, of which %d could go elsewhere: %v", up, kids[up], n, lines(as))
		}
	}
}

// checkStable asserts that hosts of the chains kept their parents unless these
// are gone, became leaves, or a newcomer was put between at no cost.
func (w *world) checkStable() {
	was, is := map[string]Assignment{}, map[string]Assignment{}
	for _, a := range w.old {
		was[a.Host] = a
	}
	for _, a := range w.plan {
		is[a.Host] = a
	}
	have := map[string]int{}
	for _, h := range w.hosts {
		have[h.ID] = h.Have
	}
	for id, a := range is {
		b, known := was[id]
		if !known || a.Parent == b.Parent || a.Leaf || b.Leaf {
			continue
		}
		up, lives := is[b.Parent]
		before, old := was[a.Parent]
		old = old && !before.Leaf // one whose accuser is not believed any more comes in like a newcomer
		isHost := have[b.Parent] > 0 || lives
		switch {
		case isHost && (!lives || up.Leaf): // gone or demoted
		case !old && have[a.Parent]+max(8, pieces/50) >= have[id]: // a newcomer that is not behind
		case have[id] == pieces: // needs nobody
		case slices.ContainsFunc(w.hosts, func(h registry.Host) bool { return h.ID == b.Parent && h.Released }):
		default:
			w.failf("%s (%d pieces) was given %s in place of %s", id, have[id], a.Parent, b.Parent)
		}
	}
}
