package host

import (
	"context"
	"errors"
	"fmt"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/steer"
	"labswarm/tui/snapshot"
)

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Host }

// Query implements screen.View: the timeline, read again when the slot changed.
func (st State) Query(s *snapshot.Snapshot) screen.Query {
	h := st.find(s)
	if h == nil || h.Slot == nil {
		return screen.Query{}
	}
	name, id := h.Name, h.Job.ID
	return screen.Query{
		Key: fmt.Sprintf("timeline %s %d %s %d %d", name, id, h.Slot.State, h.Slot.Since.UnixNano(), h.Slot.Attempt),
		Read: func(ctx context.Context, c *client.Client) (any, error) {
			j, err := c.Job(ctx, id)
			if err != nil {
				return nil, err
			}
			for i := range j.Slots {
				if s := &j.Slots[i]; snapshot.Clean(s.Host) == name {
					snapshot.CleanSlot(s)
					return timeline{name, s.Timeline}, nil
				}
			}
			return nil, errors.New("the job does not hold this host any more")
		},
	}
}

// timeline is the answer to the view's query.
type timeline struct {
	host    string
	entries []api.TimelineEntry
}

// filled is the state with what was read for it.
func (st State) filled(in screen.In) State {
	if t, ok := in.Data.(timeline); ok && t.host == st.Host {
		st.Timeline, st.Loaded = t.entries, true
	}
	st.Cause = in.Cause
	return st
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	return Render(in.S, st.filled(in), in.Foot(), in.Size, in.Th, in.Now)
}

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	ks := KeyState(in.S, st)
	ks.Idle = !steer.Running(st.find(in.S))
	return ks
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	if e, ok := steer.Ask(id, []*snapshot.Host{st.find(in.S)}); ok {
		return st, e
	}
	switch id {
	case keymap.Capture:
		return st, screen.Effect{Open: capturer{host: st.Host}}
	case keymap.Back:
		return st, screen.Effect{Back: true}
	case keymap.Left:
		return st.Next(in.S, -1), screen.Effect{}
	case keymap.Right:
		return st.Next(in.S, +1), screen.Effect{}
	}
	st.Up = st.filled(in).Scroll(id, in.S, in.Size, in.Now).Up
	return st, screen.Effect{}
}

// Leave implements screen.Leaver: the screen below selects the host that was
// looked at last.
func (st State) Leave(below screen.View) screen.View {
	if c, ok := below.(screen.Chooser); ok {
		return c.At(st.Room, st.Host)
	}
	return below
}
