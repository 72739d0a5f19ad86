package questions

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/screen/form"
	"labswarm/tui/snapshot"
)

// answer asks whether a choice is meant.
func answer(q *api.Question, name string) confirm.State {
	id, text := q.ID, ""
	for _, ch := range q.Choices {
		if ch.Name == name {
			text = snapshot.Clean(ch.Text)
		}
	}
	shown := snapshot.Clean(name)
	return confirm.State{
		Title: fmt.Sprintf("Answer %q?", shown),
		Facts: []string{snapshot.Clean(q.Text), shown + ": " + text},
		Action: screen.Action{Doing: "answer " + shown, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			_, err := c.Answer(ctx, id, name)
			return screen.Done{Said: fmt.Sprintf("question %d is answered: %s", id, shown)}, err
		}},
	}
}

// The fields of the form for a new PC.
const (
	fieldCode = iota
	fieldRoom
	fieldSeat
	fieldReplace
)

// bind asks for the code on a new PC's screen and its seat.
func bind(s *snapshot.Snapshot, room string) form.State {
	if l := s.Server.Learn; l != nil {
		room = l.Room
	}
	return form.State{
		Title: "Give a new PC its seat",
		Facts: []string{"The code stands on the PC's screen. It is good once and for ten minutes; five wrong codes make all PCs show new ones."},
		Fields: form.Fields{All: []form.Field{
			{Label: "code", Hint: "six digits"},
			{Label: "room", Hint: "where it stands", Text: room},
			{Label: "seat", Hint: free(s, room)},
			{Label: "replace", Hint: "yes: it takes the place of the PC that sits there", Text: "no"},
		}},
		Next: func(f form.Fields) (screen.View, int, error) { return bound(s, f) },
	}
}

// free names some seats without a PC.
func free(s *snapshot.Snapshot, room string) string {
	const most = 6
	i, ok := s.Find(room)
	if !ok || s.Rooms[i].Map == nil {
		return "its label in the room"
	}
	var out []string
	for _, seat := range s.Rooms[i].Map.Seats {
		if seat.Host < 0 && len(out) <= most {
			out = append(out, seat.Label)
		}
	}
	switch {
	case len(out) == 0:
		return "no seat is free"
	case len(out) > most:
		out[most] = "..."
	}
	return "free: " + strings.Join(out, " ")
}

// bound is the question about a filled form.
func bound(s *snapshot.Snapshot, f form.Fields) (_ screen.View, bad int, _ error) {
	b := api.EnrolBind{Code: strings.ReplaceAll(f.Get(fieldCode), " ", ""), Room: f.Get(fieldRoom), Seat: f.Get(fieldSeat)}
	if len(b.Code) != 6 || strings.Trim(b.Code, "0123456789") != "" {
		return nil, fieldCode, errors.New("type the six digits on the PC's screen")
	}
	if b.Room == "" {
		return nil, fieldRoom, errors.New("which room does it stand in?")
	}
	if b.Seat == "" {
		return nil, fieldSeat, errors.New("which seat does it stand at?")
	}
	switch f.Get(fieldReplace) {
	case "yes", "y":
		b.Replace = true
	case "no", "n", "":
	default:
		return nil, fieldReplace, fmt.Errorf("%q: use yes or no", f.Get(fieldReplace))
	}
	facts := []string{"Its name follows from room and seat."}
	if b.Replace {
		facts = []string{"It takes the place of " + sitting(s, b.Room, b.Seat) + ": name and seat stay, the old PC is forgotten."}
	}
	return confirm.State{
		Title: fmt.Sprintf("The PC that shows %s sits on seat %s of room %s?", b.Code, b.Seat, b.Room),
		Facts: facts,
		Action: screen.Action{Doing: "give the PC its seat", Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			h, err := c.Bind(ctx, b)
			return screen.Done{Said: fmt.Sprintf("host %s sits on seat %s of room %s: MAC %s", h.Name, h.Seat, h.Room, h.MAC), Back: true}, err
		}},
	}, 0, nil
}

// sitting names who sits on a seat.
func sitting(s *snapshot.Snapshot, room, seat string) string {
	if i, ok := s.Find(room); ok {
		for k := range s.Rooms[i].Hosts {
			if h := &s.Rooms[i].Hosts[k]; h.Seat == seat {
				return h.Name
			}
		}
	}
	return "the PC that sits there"
}
