package host

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// capturer asks for the name of the image that is made of a host's disk.
type capturer struct{ host, text string }

const maxImage = 64 // bytes of the name; which characters it may have is the server's to say

// Screen implements screen.View.
func (st capturer) Screen() keymap.Screen { return keymap.Confirm }

// Query implements screen.View.
func (st capturer) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st capturer) KeyState(screen.In) keymap.State { return keymap.State{} }

// Typing implements screen.Typist.
func (st capturer) Typing() bool { return true }

// Press implements screen.View; no key comes here.
func (st capturer) Press(keymap.ID, screen.In) (screen.View, screen.Effect) {
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st capturer) Type(key string, _ screen.In) (screen.View, screen.Effect) {
	switch key {
	case "esc":
		return st, screen.Effect{Back: true, Note: "nothing was done"}
	case "enter":
		if name := strings.TrimSpace(st.text); name != "" {
			return st, screen.Effect{Back: true, Open: captureOf(st.host, name)}
		}
		return st, screen.Effect{Note: "type a name for the image first; esc goes back"}
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(st.text)
		st.text = st.text[:len(st.text)-n]
	case "ctrl+u":
		st.text = ""
	default:
		if utf8.RuneCountInString(key) == 1 && len(st.text)+len(key) <= maxImage {
			st.text += key
		}
	}
	return st, screen.Effect{}
}

// captureOf asks before the host is restarted to be read.
func captureOf(host, image string) confirm.State {
	return confirm.State{
		Title: fmt.Sprintf("Make a new version of the image %s from the disk of %s?", image, host),
		Facts: []string{
			"The host is read when it next boots from the network. Nothing is written to its disk.",
			"The server refuses disks that it cannot read whole; labswarm image capture says more.",
		},
		Action: screen.Action{Doing: "capture " + host, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			j, err := c.Capture(ctx, image, api.CaptureCreate{Host: host})
			return screen.Done{Said: fmt.Sprintf("job %d makes the image %s; restart %s from the network", j.ID, image, host)}, err
		}},
	}
}

// Render implements screen.View.
func (st capturer) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	c.End().Line(theme.Head, " Image of the disk of "+st.host).End()
	c.Line(theme.Text, " Name of the image; a new version of it is made:")
	c.Add(theme.Text, "   ").Add(theme.Sel, " "+st.text+"_ ").End()
	c.Down(1)
	foot := in.Foot()
	if foot.Message == "" {
		foot.Message = "enter go on   esc back, nothing is done"
	}
	foot.Write(c, st.Screen(), keymap.State{})
	return c.String()
}
