package rooms

import (
	"context"
	"fmt"
	"strconv"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/screen/form"
	"labswarm/tui/snapshot"
)

// maxLearn is how long learn mode may be open, in minutes.
const maxLearn = 240

// learn asks for how long learn mode is to be open, or whether it is to be
// closed.
func learn(s *snapshot.Snapshot, room string) screen.View {
	if l := s.Server.Learn; l != nil {
		return confirm.State{
			Title: fmt.Sprintf("Close learn mode of room %s?", l.Room),
			Facts: []string{"PCs that wait for a seat boot their own disks; those that have one keep it."},
			Action: screen.Action{Doing: "close learn mode", Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
				return screen.Done{Said: "learn mode is closed"}, c.CloseLearn(ctx)
			}},
		}
	}
	return form.State{
		Title: fmt.Sprintf("Open learn mode for room %s", room),
		Facts: []string{"Unknown PCs of this room that boot from the network show a six-digit code. Nothing can be written meanwhile: what they boot holds no code that writes a disk."},
		Fields: form.Fields{All: []form.Field{
			{Label: "minutes", Hint: fmt.Sprintf("1 to %d", maxLearn), Text: "30"},
			{Label: "a PC with its seat", Hint: "reboot or poweroff", Text: "reboot"},
		}},
		Next: func(f form.Fields) (screen.View, int, error) { return openLearn(room, f) },
	}
}

// openLearn is the question about a filled form.
func openLearn(room string, f form.Fields) (_ screen.View, bad int, _ error) {
	n, err := strconv.Atoi(f.Get(0))
	if err != nil || n < 1 || n > maxLearn {
		return nil, 0, fmt.Errorf("%q: use a number from 1 to %d", f.Get(0), maxLearn)
	}
	after := f.Get(1)
	if after != "reboot" && after != "poweroff" {
		return nil, 1, fmt.Errorf("%q: use reboot or poweroff", after)
	}
	return confirm.State{
		Title: fmt.Sprintf("Open learn mode for room %s for %d minutes?", room, n),
		Facts: []string{"It ends by itself; L on the rooms screen ends it before."},
		Action: screen.Action{Doing: "open learn mode", Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			l, err := c.OpenLearn(ctx, api.Learn{Room: room, Minutes: n, After: after})
			return screen.Done{Said: fmt.Sprintf("learn mode is open for %s; u lists the PCs that show a code", l.Room), Back: true}, err
		}},
	}, 0, nil
}
