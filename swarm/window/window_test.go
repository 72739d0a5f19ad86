package window

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func setOf(n int, pieces ...int) *Set {
	s := NewSet(n)
	for _, p := range pieces {
		s.Add(p)
	}
	return s
}

func full(n int) *Set {
	s := NewSet(n)
	s.Fill()
	return s
}

func TestPick(t *testing.T) {
	in := func(ps ...int) func(int) bool { return func(i int) bool { return slices.Contains(ps, i) } }
	for _, c := range []struct {
		name string
		q    Query
		want []int
	}{
		{"nothing held, ascending", Query{Have: setOf(9), Source: full(9), Window: 4, Max: 9}, []int{0, 1, 2, 3}},
		{"max bounds", Query{Have: setOf(9), Source: full(9), Window: 4, Max: 2}, []int{0, 1}},
		{"held is skipped", Query{Have: setOf(9, 0, 2), Source: full(9), Window: 3, Max: 9}, []int{1, 3, 4}},
		{"busy takes a place", Query{Have: setOf(9), Source: full(9), Busy: in(0, 1), Window: 3, Max: 9}, []int{2}},
		{"barred takes no place", Query{Have: setOf(9), Source: full(9), Barred: in(0, 1), Window: 3, Max: 9}, []int{2, 3, 4}},
		{"a piece the source lacks does not stop the window", Query{Have: setOf(99, 0), Source: setOf(99, 0, 50, 51, 98), Window: 2, Max: 9}, []int{50, 51}},
		{"source behind us", Query{Have: setOf(9, 0, 1, 2), Source: setOf(9, 0, 1), Window: 4, Max: 9}, nil},
		{"complete", Query{Have: full(9), Source: full(9), Window: 4, Max: 9}, nil},
		{"sizes differ", Query{Have: setOf(9), Source: full(8), Window: 4, Max: 9}, nil},
		{"no room", Query{Have: setOf(9), Source: full(9), Window: 4}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, Pick(c.q)); d != "" {
				t.Errorf("Pick (-want +got):\n%s", d)
			}
		})
	}
}

// TestSetModel compares Set with a map under random operations.
func TestSetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		s, model := NewSet(n), map[int]bool{}
		for range rapid.IntRange(0, 300).Draw(t, "ops") {
			i := rapid.IntRange(-1, n).Draw(t, "i")
			ok := i >= 0 && i < n
			switch rapid.IntRange(0, 12).Draw(t, "op") {
			case 0:
				s.Fill()
				for j := range n {
					model[j] = true
				}
			case 1, 2, 3, 4:
				if got, want := s.Remove(i), model[i]; got != want {
					t.Fatalf("Remove(%d) = %v; want %v", i, got, want)
				}
				delete(model, i)
			default:
				if got, want := s.Add(i), ok && !model[i]; got != want {
					t.Fatalf("Add(%d) = %v; want %v", i, got, want)
				}
				if ok {
					model[i] = true
				}
			}
			front := 0
			for front < n && model[front] {
				front++
			}
			if s.Count() != len(model) || s.Front() != front || s.Full() != (len(model) == n) {
				t.Fatalf("count %d front %d full %v; want %d %d", s.Count(), s.Front(), s.Full(), len(model), front)
			}
		}
		for i, b := range s.Bools() {
			if b != model[i] || s.Has(i) != b {
				t.Fatalf("piece %d: Bools %v, Has %v; want %v", i, b, s.Has(i), model[i])
			}
		}
	})
}

// TestPickProperties: what Pick returns is needed, obtainable, free, ascending
// and within the window; and it never stops while there is anything to ask.
func TestPickProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		draw := func(name string) *Set {
			s := NewSet(n)
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, n-1), 0, n).Draw(t, name) {
				s.Add(i)
			}
			return s
		}
		have, src, busy, barred := draw("have"), draw("src"), draw("busy"), draw("barred")
		q := Query{Have: have, Source: src, Busy: busy.Has, Barred: barred.Has,
			Window: rapid.IntRange(1, 80).Draw(t, "window"), Max: rapid.IntRange(1, 80).Draw(t, "max")}
		got := Pick(q)
		var want []int
		open := 0
		for i := range n {
			if have.Has(i) || !src.Has(i) || barred.Has(i) {
				continue
			}
			if open++; open > q.Window {
				break
			}
			if !busy.Has(i) && len(want) < q.Max {
				want = append(want, i)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("Pick (-want +got):\n%s", d)
		}
		cnt := 0
		for i := range n {
			if src.Has(i) && !have.Has(i) && !barred.Has(i) {
				cnt++
			}
		}
		if g := Obtainable(have, src, q.Max, barred.Has); g != min(cnt, q.Max) {
			t.Fatalf("Obtainable = %d; want %d", g, min(cnt, q.Max))
		}
	})
}

func TestDepth(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		rate  int64
		rtt   time.Duration
		piece int64
		block int
		want  int64
	}{
		{"unknown rate: two pieces", 0, time.Millisecond, mib, 128 << 10, 2 * mib},
		{"gigabit LAN: two pieces hold more than the line", 118e6, 300 * time.Microsecond, mib, 128 << 10, 2 * mib},
		{"long line: twice rate x RTT", 100e6, 50 * time.Millisecond, mib, 128 << 10, 10e6},
		{"slow line: two seconds of it", 400e3, time.Millisecond, mib, 128 << 10, 800e3},
		{"very slow line: two blocks", 10e3, time.Millisecond, mib, 128 << 10, 256 << 10},
		{"small pieces", 0, 0, 64 << 10, 16 << 10, mib},
	} {
		if got := Depth(c.rate, c.rtt, c.piece, c.block); got != c.want {
			t.Errorf("%s: Depth = %d; want %d", c.name, got, c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	var got []int
	for n := range 8 {
		got = append(got, int(Backoff(n)/time.Second))
	}
	if d := cmp.Diff([]int{0, 1, 2, 4, 8, 15, 15, 15}, got); d != "" {
		t.Errorf("Backoff in seconds (-want +got):\n%s", d)
	}
}

func TestChoose(t *testing.T) {
	now := time.Unix(1000, 0)
	late := now.Add(3 * time.Second)
	later := now.Add(9 * time.Second)
	for _, c := range []struct {
		name string
		cs   []Candidate
		want int
		wait time.Time
	}{
		{"parent first", []Candidate{{}, {}, {}}, 0, time.Time{}},
		{"lost parent: the first fallback at once", []Candidate{{Rejected: true, NotBefore: late}, {}, {}}, 1, time.Time{}},
		{"rejected is better than nothing", []Candidate{{Rejected: true}, {NotBefore: late}}, 0, time.Time{}},
		{"a good one behind a rejected one", []Candidate{{Rejected: true}, {Rejected: true}, {}}, 2, time.Time{}},
		{"all in backoff: the earliest", []Candidate{{NotBefore: later}, {NotBefore: late}}, -1, late},
		{"nobody", nil, -1, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, wait := Choose(c.cs, now)
			if got != c.want || !wait.Equal(c.wait) {
				t.Errorf("Choose = %d, %v; want %d, %v", got, wait, c.want, c.wait)
			}
		})
	}
}
