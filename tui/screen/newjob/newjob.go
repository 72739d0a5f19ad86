// Package newjob is the console's way to a new job in four steps: image, room,
// when, plan; then the question with the name to be typed. Nothing is decided
// here: the plan is the server's dry run, and the server checks the typed name
// once more.
package newjob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// step is how far the person is.
type step uint8

const (
	stepImage step = iota
	stepRoom
	stepWhen
	stepPlan
)

// State is what was chosen so far. A choice that came with the call skips its
// step.
type State struct {
	at     step
	image  string   // NAME/VERSION
	room   string   // or
	hosts  []string // named hosts
	given  [2]bool  // image, room: came with the call
	images list.State
	rooms  list.State
	form   form
	plan   list.State
	asked  int // times the plan was asked for: each is a question of its own
}

// ForRoom begins a job for a room, "" = to be chosen.
func ForRoom(room string) State {
	return State{room: room, given: [2]bool{false, room != ""}, form: newForm()}
}

// ForHosts begins a job for named hosts.
func ForHosts(hosts []string) State {
	return State{hosts: hosts, given: [2]bool{false, true}, form: newForm()}
}

// OfImage begins a job of an image, NAME/VERSION.
func OfImage(image string) State {
	return State{at: stepRoom, image: image, given: [2]bool{true, false}, form: newForm()}
}

// Screen implements screen.View.
func (st State) Screen() keymap.Screen {
	switch st.at {
	case stepImage, stepRoom:
		return keymap.NewJob1
	case stepWhen:
		return keymap.Confirm
	}
	return keymap.NewJob2
}

// Query implements screen.View: the images, then the plan.
func (st State) Query(*snapshot.Snapshot) screen.Query {
	switch st.at {
	case stepImage:
		return screen.Query{Key: "images", Every: 10 * time.Second, Read: func(ctx context.Context, c *client.Client) (any, error) { return c.Images(ctx) }}
	case stepPlan:
		req := st.request()
		raw, err := json.Marshal(req)
		if err != nil {
			return screen.Query{}
		}
		return screen.Query{Key: fmt.Sprintf("plan %d %s", st.asked, raw), Read: func(ctx context.Context, c *client.Client) (any, error) { return c.PlanJob(ctx, req) }}
	}
	return screen.Query{}
}

// request is the job that was chosen.
func (st State) request() api.JobCreate {
	name, version, _ := strings.Cut(st.image, "/")
	r := api.JobCreate{Image: name, Version: version, Room: st.room, Hosts: st.hosts, After: st.form.after()}
	r.NotBefore, r.NotAfter, r.Wake = st.form.from, st.form.until, st.form.wake()
	return r
}

// KeyState implements screen.View.
func (st State) KeyState(in screen.In) keymap.State {
	t, l := st.table(in)
	lines, _ := l.Shown(t)
	return keymap.State{Items: len(lines)}
}

// table is the list of the present step with its state.
func (st State) table(in screen.In) (list.Table, list.State) {
	switch st.at {
	case stepImage:
		return imageTable(in), st.images
	case stepRoom:
		return roomTable(in), st.rooms
	case stepPlan:
		return planTable(in), st.plan
	}
	return list.Table{}, list.State{}
}

func (st State) with(l list.State) State {
	switch st.at {
	case stepImage:
		st.images = l
	case stepRoom:
		st.rooms = l
	case stepPlan:
		st.plan = l
	}
	return st
}

// Press implements screen.View.
func (st State) Press(id keymap.ID, in screen.In) (screen.View, screen.Effect) {
	t, l := st.table(in)
	switch id {
	case keymap.Back:
		return st.back()
	case keymap.Save:
		return st, st.save(in)
	case keymap.Open:
		if st.at == stepPlan {
			return st, st.ask(in)
		}
		if sel := l.Selected(t); sel != nil {
			return st.choose(sel.Key), screen.Effect{}
		}
		return st, screen.Effect{}
	}
	return st.with(l.Move(id, t, in.Size.H-6)), screen.Effect{}
}

// choose takes the selected line and goes to the next open step.
func (st State) choose(key string) State {
	if st.at == stepImage {
		st.image = key
		st.at = stepRoom
		if st.given[1] {
			st.at = stepWhen
		}
		return st
	}
	st.room, st.at = key, stepWhen
	return st
}

// back goes to the step before, or closes the view.
func (st State) back() (screen.View, screen.Effect) {
	for st.at > stepImage {
		st.at--
		if st.at == stepWhen || st.at == stepRoom && !st.given[1] || st.at == stepImage && !st.given[0] {
			return st, screen.Effect{}
		}
	}
	return st, screen.Effect{Back: true, Note: "no job was made"}
}

// Typing implements screen.Typist: in a filter, and in the form.
func (st State) Typing() bool {
	switch st.at {
	case stepImage:
		return st.images.Typing()
	case stepRoom:
		return st.rooms.Typing()
	}
	return st.at == stepWhen
}

// Type implements screen.Typist.
func (st State) Type(key string, in screen.In) (screen.View, screen.Effect) {
	if st.at != stepWhen {
		t, l := st.table(in)
		return st.with(l.Type(key, t)), screen.Effect{}
	}
	switch key {
	case "esc":
		return st.back()
	case "enter":
		form, err := st.form.check(in.Now)
		st.form = form
		if err != nil {
			return st, screen.Effect{Note: err.Error()}
		}
		st.at = stepPlan
		st.asked++
		return st, screen.Effect{}
	}
	st.form.Fields = st.form.Typed(key)
	return st, screen.Effect{}
}

// Render implements screen.View.
func (st State) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	names := [...]string{"image", "room", "when", "dry run, nothing sent"}
	c.Add(theme.Head, " New job").Line(theme.Text, fmt.Sprintf("   step %d of 4: %s", st.at+1, names[st.at]))
	c.Line(theme.Dim, " "+st.chosen())
	if in.Cause != "" && (st.at == stepImage || st.at == stepPlan) {
		for _, l := range component.Wrap(in.Cause, c.Left()-2, 4) {
			c.Line(theme.Bad, " "+l)
		}
	}
	switch st.at {
	case stepWhen:
		st.form.draw(c)
	case stepPlan:
		st.drawPlan(c, in)
	default:
		t, l := st.table(in)
		l.Draw(c, t, c.Rows()-1)
	}
	c.Down(1)
	foot := in.Foot()
	if st.at == stepWhen && foot.Message == "" {
		foot.Message = "tab next field   enter go on   esc back   ctrl+c quit"
	}
	foot.Write(c, st.Screen(), st.KeyState(in))
	return c.String()
}

// chosen is what is settled, in one line.
func (st State) chosen() string {
	parts := []string{"image " + or(st.image, "-"), "for " + or(st.target(), "-")}
	if st.at > stepWhen {
		parts = append(parts, st.form.words())
	}
	return strings.Join(parts, "   ")
}

func (st State) target() string {
	switch n := len(st.hosts); {
	case n == 1:
		return st.hosts[0]
	case n > 1:
		return fmt.Sprintf("%d marked hosts", n)
	}
	return st.room
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
