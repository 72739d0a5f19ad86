package list

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labswarm/api/filter"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/theme"
)

func table(n int) Table {
	t := Table{Cols: []component.Column{{Head: "HOST"}, {Head: "STATE", Drop: 1}, {Head: "TEXT", Grow: true}}, Names: []string{"host", "state"}, Empty: "no hosts yet"}
	for i := range n {
		name, state := fmt.Sprintf("a%02d", i), []string{"done", "failed"}[i%2]
		t.Lines = append(t.Lines, Line{Key: name, Cells: component.Plain(name, state, "some words about "+name), Row: filter.Row{"host": name, "state": state}})
	}
	return t
}

func draw(st State, t Table, w, h int) string {
	c := component.NewCanvas(component.Size{W: w, H: h}, theme.New(false, true))
	st.Draw(c, t, h)
	return c.String()
}

func typed(st State, t Table, text string) State {
	for _, r := range text {
		st = st.Type(string(r), t)
	}
	return st
}

func TestFilterField(t *testing.T) {
	tab := table(10)
	st := State{}.Move(keymap.Filter, tab, 5)
	if !st.Typing() {
		t.Fatal("/ does not open the field")
	}
	st = typed(st, tab, "state=failed")
	if got := draw(st, tab, 60, 8); !strings.Contains(got, "/ state=failed_") || !strings.Contains(got, "5 of 10") || strings.Contains(got, "a00") {
		t.Errorf("while typing:\n%s", got)
	}
	kept := st.Type("enter", tab)
	if kept.Typing() || kept.Text != "state=failed" {
		t.Errorf("enter: %+v", kept)
	}
	again := typed(kept.Move(keymap.Filter, tab, 5), tab, "x").Type("esc", tab)
	if again.Typing() || again.Text != "state=failed" {
		t.Errorf("esc does not take the text back: %+v", again)
	}
	bad := typed(State{}.Move(keymap.Filter, tab, 5), tab, "colour=red")
	if got := draw(bad, tab, 78, 8); !strings.Contains(got, "there is no column") || !strings.Contains(got, "a00") {
		t.Errorf("a bad filter hides lines or is not explained:\n%s", got)
	}
	if got := draw(typed(State{}.Move(keymap.Filter, tab, 5), tab, "zzz"), tab, 60, 8); !strings.Contains(got, "none of 10 lines") {
		t.Errorf("nothing matches:\n%s", got)
	}
}

// TestSelectionStays: on its line by name when lines come before it, at its
// place when it is gone.
func TestSelectionStays(t *testing.T) {
	tab := table(9)
	st := State{}.Move(keymap.Down, tab, 5).Move(keymap.Down, tab, 5)
	if st.Selected(tab).Key != "a02" {
		t.Fatalf("selected %s", st.Selected(tab).Key)
	}
	fewer := tab
	fewer.Lines = tab.Lines[1:]
	if st.Selected(fewer).Key != "a02" {
		t.Error("the selection moved with the lines")
	}
	fewer.Lines = append(append([]Line(nil), tab.Lines[:2]...), tab.Lines[3:]...)
	if st.Selected(fewer).Key != "a03" {
		t.Errorf("of a line that is gone: %s", st.Selected(fewer).Key)
	}
	if (State{}).Selected(Table{}) != nil {
		t.Error("an empty list has a selected line")
	}
}

// TestAlwaysFits: any keys, any size: the selected line is on the screen, no
// line is too wide.
func TestAlwaysFits(t *testing.T) {
	ids := []keymap.ID{keymap.Up, keymap.Down, keymap.PageUp, keymap.PageDown, keymap.First, keymap.Last}
	rapid.Check(t, func(rt *rapid.T) {
		tab, st := table(rapid.IntRange(0, 60).Draw(rt, "n")), State{}
		w, h := rapid.IntRange(12, 100).Draw(rt, "w"), rapid.IntRange(3, 30).Draw(rt, "h")
		if rapid.Bool().Draw(rt, "filter") {
			st.Text = "state=failed"
		}
		for range rapid.IntRange(0, 20).Draw(rt, "keys") {
			st = st.Move(rapid.SampledFrom(ids).Draw(rt, "key"), tab, h-1)
		}
		got := draw(st, tab, w, h)
		for _, l := range strings.Split(got, "\n") {
			if component.Width(l) > w {
				rt.Fatalf("%q is wider than %d", l, w)
			}
		}
		if sel := st.Selected(tab); sel != nil && !strings.Contains(got, ">"+sel.Key) {
			rt.Fatalf("the selected line %s is not shown:\n%s", sel.Key, got)
		}
	})
}
