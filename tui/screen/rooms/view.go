package rooms

import (
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/host"
	"labswarm/tui/screen/job"
	"labswarm/tui/screen/newjob"
	"labswarm/tui/screen/questions"
	"labswarm/tui/screen/steer"
	"labswarm/tui/snapshot"
)

// Screen implements screen.View.
func (st State) Screen() keymap.Screen { return keymap.Rooms }

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	return Render(in.S, st.filled(in), in.Foot(), in.Size, in.Th, in.Now)
}

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	ks := KeyState(in.S, st)
	ks.Idle = true
	for _, h := range st.chosenHosts(in) {
		ks.Idle = ks.Idle && !steer.Running(h)
	}
	return ks
}

// chosenHosts are the hosts that a command is for.
func (st State) chosenHosts(in screen.In) (out []*snapshot.Host) {
	r, _ := st.Selected(in.S, in.Size)
	for _, name := range st.Chosen(in.S, in.Size) {
		if k, ok := r.Find(name); ok {
			out = append(out, &r.Hosts[k])
		}
	}
	return out
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	st = st.filled(in)
	r, h := st.Selected(in.S, in.Size)
	if e, ok := steer.Ask(id, st.chosenHosts(in)); ok {
		return st, e
	}
	switch {
	case id == keymap.Open && h != nil:
		return st, screen.Effect{Open: host.State{Room: r.Name, Host: h.Name}}
	case id == keymap.LearnMode && r != nil && r.Name == snapshot.NoRoom && in.S.Server.Learn == nil:
		return st, screen.Effect{Note: "learn mode is for one room: choose it with tab"}
	case id == keymap.LearnMode && r != nil:
		return st, screen.Effect{Open: learn(in.S, r.Name)}
	case id == keymap.GoQuestions:
		room := ""
		if r != nil && r.Name != snapshot.NoRoom {
			room = r.Name
		}
		return st, screen.Effect{Open: questions.State{Room: room}}
	case id == keymap.Dense:
		return st.zoom(in)
	case id == keymap.RoomJob && r != nil && r.Job != nil:
		return st, screen.Effect{Open: job.State{ID: r.Job.ID}}
	case (id == keymap.Mark || id == keymap.MarkAll) && h != nil:
		return st.mark(id, r, h.Name), screen.Effect{}
	case id == keymap.NewJob && r != nil:
		if len(st.Marked) > 0 {
			return st, screen.Effect{Open: newjob.ForHosts(st.Chosen(in.S, in.Size))}
		}
		return st, screen.Effect{Open: newjob.ForRoom(r.Name)}
	}
	return st.Move(id, in.S, in.Size, in.Now), screen.Effect{}
}

// zoom goes to the dense map and back.
func (st State) zoom(in screen.In) (State, screen.Effect) {
	r, h := st.Selected(in.S, in.Size)
	if in.Size.W < narrow || h == nil {
		return st, screen.Effect{Note: "there is no map to change here"}
	}
	was := st.Dense
	st.Dense = false
	if k := st.layout(in.S, r, in.Size, in.Now).kind; k == dense || k == denseSeats {
		return st, screen.Effect{Note: "the names do not fit on this screen: the map is dense already"}
	}
	st.Dense = !was
	return st, screen.Effect{}
}

// At implements screen.Chooser.
func (st State) At(room, host string) screen.View {
	st.Room, st.Host = room, host
	return st
}
