// Package questions is the console's list of what waits for a person: questions
// that the server does not answer itself, and new PCs that show a code.
package questions

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	Room string // the one looked at, for the form of a new PC

	all     list.State
	asked   uint64 // the question whose choices are shown, 0 = none
	choices list.State
}

// Facts is what the view reads.
type Facts struct {
	Questions []api.Question  // open ones
	Waiting   []api.Enrolment // without a seat
}

const readEvery = 2 * time.Second

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Questions }

// Query implements screen.View.
func (st State) Query(*snapshot.Snapshot) screen.Query {
	return screen.Query{Key: "questions", Every: readEvery, Read: func(ctx context.Context, c *client.Client) (any, error) {
		qs, err := c.Questions(ctx)
		if err != nil {
			return nil, err
		}
		pcs, err := c.Enrolments(ctx)
		if err != nil {
			return nil, err
		}
		var f Facts
		for _, q := range qs {
			if q.Answer == "" {
				f.Questions = append(f.Questions, q)
			}
		}
		for _, p := range pcs {
			if p.Host == "" {
				f.Waiting = append(f.Waiting, p)
			}
		}
		return f, nil
	}}
}

// question is the one whose choices are shown, nil = none, or it is answered.
func (st State) question(in screen.In) *api.Question {
	f, _ := in.Data.(Facts)
	for i := range f.Questions {
		if st.asked != 0 && f.Questions[i].ID == st.asked {
			return &f.Questions[i]
		}
	}
	return nil
}

// shown is the list on the screen with its state.
func (st State) shown(in screen.In) (list.Table, list.State) {
	if q := st.question(in); q != nil {
		return choiceTable(q), st.choices
	}
	return table(in), st.all
}

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	t, _ := st.shown(in)
	return keymap.State{Items: len(t.Lines)}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	f, read := in.Data.(Facts)
	c.Add(theme.Head, " Questions and new PCs")
	if read {
		c.Add(theme.Text, fmt.Sprintf("   %d and %d", len(f.Questions), len(f.Waiting)))
	}
	if in.Cause != "" {
		c.Add(theme.Warn, "   could not be read: "+in.Cause)
	}
	c.End()
	t, l := st.shown(in)
	if q := st.question(in); q != nil {
		component.Para(c, snapshot.Clean(q.Text), 4)
		c.End()
		l.Draw(c, t, c.Rows()-1)
	} else {
		below := about(l, t, f, in)
		l.Draw(c, t, c.Rows()-1-len(below))
		c.Down(1 + len(below))
		for _, b := range below {
			c.Line(theme.Text, " "+b)
		}
	}
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// about is the whole text of the selected line.
func about(l list.State, t list.Table, f Facts, in screen.In) []string {
	most := max(2, in.Size.H/4)
	sel := l.Selected(t)
	if sel == nil {
		return nil
	}
	for i := range f.Questions {
		if q := &f.Questions[i]; questionKey(q) == sel.Key {
			return component.Wrap(snapshot.Clean(q.Text), in.Size.W-3, most)
		}
	}
	for i := range f.Waiting {
		if p := &f.Waiting[i]; pcKey(p) == sel.Key {
			return component.Wrap(pcFacts(p), in.Size.W-3, most)
		}
	}
	return nil
}

// pcFacts is what is known of a new PC.
func pcFacts(p *api.Enrolment) string {
	parts := []string{p.MAC, p.IP, p.Vendor, p.Product, "serial " + p.Serial}
	for _, d := range p.Disks {
		parts = append(parts, "disk "+d.Model+" "+units.FormatBytes(d.Bytes)+" "+d.Serial)
	}
	if p.Locked {
		parts = append(parts, "too many wrong codes were typed: it shows a new one in a moment")
	}
	return snapshot.Clean(strings.Join(parts, "  "))
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t, l := st.shown(in)
	q, sel := st.question(in), l.Selected(t)
	switch {
	case id == keymap.Back && q != nil:
		st.asked = 0
		return st, screen.Effect{}
	case id == keymap.Back:
		return st, screen.Effect{Back: true}
	case id == keymap.Bind:
		return st, screen.Effect{Open: bind(in.S, st.Room)}
	case id == keymap.Answer && q != nil && sel != nil:
		return st, screen.Effect{Open: answer(q, sel.Key)}
	case id == keymap.Answer && sel != nil:
		if n, ok := strings.CutPrefix(sel.Key, "question "); ok {
			st.asked, _ = strconv.ParseUint(n, 10, 64) // questionKey wrote it
			st.choices = list.State{}
			return st, screen.Effect{}
		}
		return st, screen.Effect{Open: bind(in.S, st.Room)}
	}
	if l = l.Move(id, t, in.Size.H-6); q != nil {
		st.choices = l
	} else {
		st.all = l
	}
	return st, screen.Effect{}
}

func questionKey(q *api.Question) string { return fmt.Sprintf("question %d", q.ID) }

func pcKey(p *api.Enrolment) string { return "pc " + snapshot.Clean(p.ID) }

func table(in screen.In) list.Table {
	t := list.Table{
		Cols:  []component.Column{{Head: "WHAT"}, {Head: "WHO", Max: 17}, {Head: "ROOM", Max: 12, Drop: 2}, {Head: "SINCE", Drop: 1}, {Head: "TEXT", Grow: true}},
		Empty: "Nothing waits for an answer. New PCs show a code while learn mode is open: L on the rooms screen.",
	}
	f, ok := in.Data.(Facts)
	if !ok {
		t.Empty = "asking the server what waits for an answer ..."
		return t
	}
	for i := range f.Questions {
		q := &f.Questions[i]
		who := q.Host
		if who == "" {
			who = q.MAC
		}
		cells := component.Plain(kind(q.Kind), snapshot.Clean(who), snapshot.Clean(q.Room), component.Clock(q.Asked, in.Now), snapshot.Clean(q.Text))
		cells[0].Role = theme.Warn
		t.Lines = append(t.Lines, list.Line{Key: questionKey(q), Cells: cells})
	}
	for i := range f.Waiting {
		p := &f.Waiting[i]
		room := ""
		if in.S.Server.Learn != nil {
			room = in.S.Server.Learn.Room
		}
		cells := component.Plain("new PC", snapshot.Clean(p.MAC), room, component.Clock(p.Appeared, in.Now), snapshot.Clean(strings.Join([]string{p.Vendor, p.Product, p.Serial}, " ")))
		cells[0].Role = theme.Busy
		t.Lines = append(t.Lines, list.Line{Key: pcKey(p), Cells: cells})
	}
	return t
}

// kind is a kind of question in words.
func kind(k string) string {
	switch k {
	case api.QuestionAmbiguous:
		return "which PC"
	case api.QuestionNewDisk:
		return "new disk"
	}
	return snapshot.Clean(k)
}

func choiceTable(q *api.Question) list.Table {
	t := list.Table{Cols: []component.Column{{Head: "ANSWER"}, {Head: "WHAT IT MEANS", Grow: true}}, Empty: "this question has no answers to choose from: labswarm host questions"}
	for _, ch := range q.Choices {
		t.Lines = append(t.Lines, list.Line{Key: ch.Name, Cells: component.Plain(snapshot.Clean(ch.Name), snapshot.Clean(ch.Text))})
	}
	return t
}
