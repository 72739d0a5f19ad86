// Package doctor is the console's screen of what the server finds when it
// examines itself, its machine and its network: each finding with its cure.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/pager"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// State is what the person chose.
type State struct {
	pager.State
	Asked int // times it was asked for: each is an examination of its own
}

// checkup is the answer to the Asked-th examination.
type checkup struct {
	of int
	api.Checkup
}

const (
	patience = 45 * time.Second // some probes wait for an answer from the network
	most     = 6                // lines for one finding
)

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Doctor }

// Query implements screen.View: once for each time that it was asked for.
func (st State) Query(*snapshot.Snapshot) screen.Query {
	n := st.Asked
	return screen.Query{Key: fmt.Sprintf("doctor %d", n), Limit: patience, Read: func(ctx context.Context, c *client.Client) (any, error) {
		d, err := c.Doctor(ctx)
		return checkup{n, d}, err
	}}
}

// Found is the answer to the first examination, for tests of the screens.
func Found(d api.Checkup) any { return checkup{0, d} }

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State { return keymap.State{Items: len(st.lines(in))} }

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	switch id {
	case keymap.Back:
		return st, screen.Effect{Back: true}
	case keymap.Examine:
		st.Asked++
		st.Top = 0
		return st, screen.Effect{}
	}
	st.State = st.Move(id, len(st.lines(in)), in.Size.H)
	return st, screen.Effect{}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	c.Add(theme.Head, " Doctor")
	if d, ok := in.Data.(checkup); ok && d.of == st.Asked {
		count := map[string]int{}
		for _, f := range d.Checks {
			count[f.Result]++
		}
		c.Add(role(d.Result), fmt.Sprintf("   %d ok, %d warnings, %d failed", count[api.CheckOK], count[api.CheckWarn], count[api.CheckFail]))
		c.Add(theme.Dim, "   at "+component.Clock(d.Time, in.Now))
	}
	lines := st.lines(in)
	if more := st.More(lines, in.Size.H); more != "" {
		c.Right(theme.Dim, more)
	}
	c.End()
	st.Draw(c, lines, in.Size.H)
	c.Down(1)
	in.Foot().Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// lines are the findings, the worst first; what is well keeps the server's order.
func (st State) lines(in screen.In) []pager.Line {
	w := in.Size.W - 2
	d, ok := in.Data.(checkup)
	switch {
	case in.Cause != "":
		return pager.Wrap(theme.Warn, "", "the server could not examine itself: "+in.Cause, w, most)
	case !ok || d.of != st.Asked:
		return []pager.Line{{Role: theme.Dim, Text: "the server examines itself; it takes some seconds ..."}}
	}
	var out []pager.Line
	for _, result := range []string{api.CheckFail, api.CheckWarn, api.CheckOK} {
		for _, f := range d.Checks {
			if f.Result != result {
				continue
			}
			word := f.Result
			if word != api.CheckOK {
				word = strings.ToUpper(word)
			}
			out = append(out, pager.Wrap(role(f.Result), fmt.Sprintf("%-5s %-11s ", word, snapshot.Clean(f.Name)), snapshot.Clean(f.Text), w, most)...)
			if f.Advice != "" {
				out = append(out, pager.Wrap(theme.Text, "      -> ", snapshot.Clean(f.Advice), w, most)...)
			}
		}
	}
	return out
}

func role(result string) theme.Role {
	switch result {
	case api.CheckOK:
		return theme.Good
	case api.CheckWarn:
		return theme.Warn
	}
	return theme.Bad
}
