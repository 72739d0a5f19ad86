package rooms

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

func live(f snapshot.Facts) *snapshot.Snapshot {
	s := snapshot.Build(f)
	s.Link, s.Full, s.Heard = snapshot.Live, true, tuitest.Now()
	return s
}

// wide gives the hosts names in another script; each character takes two columns.
func wide(f snapshot.Facts) snapshot.Facts {
	digits := []rune("〇一二三四五六七八九")
	for i := range f.Hosts {
		old := f.Hosts[i].Name
		name := "席" + string(digits[i/10%10]) + string(digits[i%10])
		if i/100 > 0 {
			name = string(digits[i/100]) + name
		}
		f.Hosts[i].Name = name
		for k := range f.Jobs[0].Slots {
			if f.Jobs[0].Slots[k].Host == old {
				f.Jobs[0].Slots[k].Host = name
			}
		}
	}
	return f
}

func charts() map[string]struct {
	s  *snapshot.Snapshot
	st State
} {
	type c = struct {
		s  *snapshot.Snapshot
		st State
	}
	waits := tuitest.Seated(tuitest.Facts(40), 5, 9, tuitest.Numbered)
	waits.Server.Questions, waits.Server.Learn = 2, &api.Learn{Room: "A101", Until: tuitest.Now().Add(29 * 60e9)}
	return map[string]c{
		"map-40":       {live(tuitest.Seated(tuitest.Facts(40), 5, 9, tuitest.Numbered)), State{Host: "a05"}},
		"map-40-dense": {live(tuitest.Seated(tuitest.Facts(40), 5, 9, tuitest.Numbered)), State{Host: "a05", Dense: true, Marked: []string{"a05", "a06"}}},
		"map-400":      {live(tuitest.Seated(tuitest.Facts(402), 16, 25, tuitest.Numbered)), State{Host: "a205"}},
		"map-1000":     {live(tuitest.Seated(tuitest.Facts(1000), 20, 60, tuitest.Numbered)), State{Host: "a690"}},
		"map-empty":    {live(tuitest.Seated(snapshot.Facts{Rooms: []api.Room{{Name: "A101"}}}, 3, 6, tuitest.Numbered)), State{}},
		"map-wide":     {live(tuitest.Seated(wide(tuitest.Facts(22)), 4, 7, func(n int) string { return fmt.Sprintf("窓%d", n) })), State{}},
		"map-waits":    {live(waits), State{Host: "a05", news: news{waiting: 1}}},
	}
}

func TestChartGolden(t *testing.T) {
	for name, c := range charts() {
		for _, size := range tuitest.Sizes() {
			for kind, th := range themes() {
				got := Render(c.s, c.st, foot, size, th, tuitest.Now())
				tuitest.Fits(t, got, size)
				tuitest.Golden(t, fmt.Sprintf("%s-%dx%d-%s.txt", name, size.W, size.H, kind), got)
				if painted := Render(c.s, c.st, foot, size, theme.New(true, th.ASCII), tuitest.Now()); tuitest.Plain(painted) != got {
					t.Errorf("%s, %v: colour changes more than colour", name, size)
				}
			}
		}
	}
}

// TestLabelsInPlaceOfCutNames : names that do not fit give way to the seats'
// labels; the line about the selected host has the whole name.
func TestLabelsInPlaceOfCutNames(t *testing.T) {
	f := tuitest.Seated(tuitest.Facts(21), 3, 8, tuitest.Numbered)
	f.Jobs = nil
	for i := range f.Hosts {
		f.Hosts[i].Name = "lab-a101-" + f.Hosts[i].Name
	}
	got := Render(live(f), State{}, foot, component.Size{W: 80, H: 24}, theme.New(false, true), tuitest.Now())
	for _, want := range []string{">01   ..<", " 02   ..", " ~a21 ..", " lab-a101-a01  seat 01"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

// TestDense400 : 400 seats stand in 16 lines of 80 columns, none is left out.
func TestDense400(t *testing.T) {
	f := tuitest.Seated(tuitest.Facts(400), 16, 25, tuitest.Numbered)
	s, size := live(f), component.Size{W: 80, H: 24}
	p := State{}.layout(s, &s.Rooms[0], size, tuitest.Now())
	if p.kind != denseSeats || p.cols != 25 || p.chart.seats-p.chart.first != 16 {
		t.Errorf("%+v", p)
	}
}

func TestMoveByGeometry(t *testing.T) {
	s, size := live(tuitest.Seated(tuitest.Facts(40), 5, 9, tuitest.Numbered)), component.Size{W: 80, H: 24}
	for _, tt := range []struct{ from, keys, want string }{
		{"a01", "left", "a01"},
		{"a01", "up", "a01"},
		{"a01", "right", "a02"},
		{"a01", "down", "a08"},
		{"a08", "up", "a01"},
		{"a07", "right", "a07"}, // the seat beside it is free
		{"a04", "right", "a05"}, // across the aisle
		{"a15", "up", "a07"},    // above it is a free seat: the nearest
		{"a38", "down", "a40"},  // to those without a seat
		{"a39", "up", "a32"},
		{"a01", "last", "a40"},
		{"a40", "first", "a01"},
		{"a01", "page-down", "a39"},
	} {
		got := State{Room: "A101", Host: tt.from}.Move(keymap.ID(tt.keys), s, size, tuitest.Now()).Host
		if got != tt.want {
			t.Errorf("%s from %s = %s, want %s", tt.keys, tt.from, got, tt.want)
		}
	}
}

// anyRoom is a room of any shape, with hosts on seats, on none and on wrong ones.
func anyRoom(rt *rapid.T) *snapshot.Snapshot {
	name := rapid.OneOf(rapid.StringN(0, 20, -1), rapid.SampledFrom([]string{"機械室の端末一号機", "e\u0301\u200d", "👩‍💻", "\x1b[2J", strings.Repeat("lab-", 20) + "07"}))
	label := rapid.SampledFrom([]string{"", "1", "2", "3", "4", "5", "窓", "a seat with a long label"})
	side := rapid.IntRange(-1, 30)
	r := api.Room{Name: "R", Rows: side.Draw(rt, "rows"), Cols: rapid.IntRange(-1, 70).Draw(rt, "cols")}
	spot := func() *api.Spot {
		return rapid.Ptr(rapid.Custom(func(rt *rapid.T) api.Spot {
			return api.Spot{Row: side.Draw(rt, "r"), Col: side.Draw(rt, "c")}
		}), true).Draw(rt, "spot")
	}
	r.Door, r.Desk = spot(), spot()
	for range rapid.IntRange(0, 40).Draw(rt, "seats") {
		r.Seats = append(r.Seats, api.Seat{Label: label.Draw(rt, "label"), Row: side.Draw(rt, "row"), Col: side.Draw(rt, "col")})
	}
	f := snapshot.Facts{Rooms: []api.Room{r}}
	for range rapid.IntRange(0, 30).Draw(rt, "hosts") {
		h := api.Host{Name: name.Draw(rt, "name"), Room: "R"}
		h.Seat = label.Draw(rt, "seat")
		f.Hosts = append(f.Hosts, h)
	}
	return live(f)
}

// TestEveryHostStandsOnce : whatever a room's map says, each host has one place.
func TestEveryHostStandsOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyRoom(rt)
		r := &s.Rooms[0]
		if r.Map == nil {
			return
		}
		p := State{}.layout(s, r, component.Size{W: rapid.IntRange(60, 200).Draw(rt, "w"), H: rapid.IntRange(10, 60).Draw(rt, "h")}, tuitest.Now())
		var seen []int
		for row, line := range p.chart.lines {
			for col, sq := range line {
				if sq.what != taken {
					continue
				}
				seen = append(seen, sq.host)
				if at := p.chart.at[sq.host]; at.Row != row || at.Col != col {
					rt.Fatalf("host %d is at %d:%d, and noted at %v", sq.host, row, col, at)
				}
			}
		}
		slices.Sort(seen)
		for i := range r.Hosts {
			if i >= len(seen) || seen[i] != i {
				rt.Fatalf("of %d hosts these stand somewhere: %v", len(r.Hosts), seen)
			}
		}
	})
}

// TestChartFits : no map breaks the frame, wherever one walks; what is selected
// is on the screen; every host is reached by arrow keys.
func TestChartFits(t *testing.T) {
	keys := []keymap.ID{keymap.Up, keymap.Down, keymap.Left, keymap.Right, keymap.First, keymap.Last, keymap.PageUp, keymap.PageDown}
	rapid.Check(t, func(rt *rapid.T) {
		s := anyRoom(rt)
		s.Server.Questions = rapid.IntRange(0, 2).Draw(rt, "questions")
		st := State{Dense: rapid.Bool().Draw(rt, "dense")}
		for range 8 {
			size := component.Size{W: rapid.IntRange(40, 200).Draw(rt, "w"), H: rapid.IntRange(10, 60).Draw(rt, "h")}
			st = st.Move(rapid.SampledFrom(keys).Draw(rt, "key"), s, size, tuitest.Now())
			got := Render(s, st, foot, size, theme.New(false, false), tuitest.Now())
			lines := strings.Split(got, "\n")
			if len(lines) != size.H {
				rt.Fatalf("%d lines on %v", len(lines), size)
			}
			for _, l := range lines {
				if component.Width(l) > size.W {
					rt.Fatalf("%d columns on %v: %q", component.Width(l), size, l)
				}
			}
			if body := strings.Join(lines[2:], "\n"); len(s.Rooms[0].Hosts) > 0 && !strings.Contains(body, ">") {
				rt.Fatalf("the selected host is not on the screen of %v:\n%s", size, got)
			}
		}
	})
}

func BenchmarkRenderSeats400(b *testing.B) {
	s, th := live(tuitest.Seated(tuitest.Facts(400), 16, 25, tuitest.Numbered)), theme.New(true, false)
	size := component.Size{W: 80, H: 24}
	b.ReportAllocs()
	for b.Loop() {
		Render(s, State{Host: "a200"}, foot, size, th, tuitest.Now())
	}
}
