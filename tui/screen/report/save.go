package report

import (
	"context"
	"fmt"

	"labswarm/api/client"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// saver asks for the form of the file.
type saver struct{ job uint64 }

// forms are the documents that the server writes, by the key that chooses one.
var forms = []struct{ key, format, what string }{
	{"h", "html", "one page with plots, to print or to send"},
	{"c", "csv", "a line per PC, for a spreadsheet"},
	{"m", "md", "text for people"},
	{"j", "json", "everything, for programs"},
}

// Screen implements screen.View.
func (st saver) Screen() keymap.Screen { return keymap.Confirm }

// Query implements screen.View.
func (st saver) Query(*snapshot.Snapshot) screen.Query { return screen.Query{} }

// KeyState implements screen.View.
func (st saver) KeyState(screen.In) keymap.State { return keymap.State{} }

// Typing implements screen.Typist: all keys are the answer.
func (st saver) Typing() bool { return true }

// Press implements screen.View; no key comes here.
func (st saver) Press(keymap.ID, screen.In) (screen.View, screen.Effect) {
	return st, screen.Effect{}
}

// Type implements screen.Typist.
func (st saver) Type(key string, in screen.In) (screen.View, screen.Effect) {
	for _, f := range forms {
		if f.key == key {
			a := st.action(f.format, in)
			return st, screen.Effect{Back: true, Do: &a}
		}
	}
	return st, screen.Effect{Back: true, Note: "nothing was saved"}
}

// action fetches the document and writes it into the working folder.
func (st saver) action(format string, in screen.In) screen.Action {
	name, id := fmt.Sprintf("report-%d-%s.%s", st.job, in.Now.Format("20060102-150405"), format), st.job
	return screen.Action{Doing: "save the report as " + name, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
		doc, err := c.Rendered(ctx, id, format)
		if err != nil {
			return screen.Done{}, err
		}
		return screen.Done{Said: "saved: " + name}, screen.Save(name, []byte(doc.Text), 0o644)
	}}
}

// Render implements screen.View.
func (st saver) Render(in screen.In) string {
	c, ok := screen.Framer(in, "")
	if !ok {
		return c.String()
	}
	c.End().Line(theme.Head, fmt.Sprintf(" Save the report of job %d as", st.job)).End()
	for _, f := range forms {
		c.Line(theme.Text, fmt.Sprintf("   %s  %-5s %s", f.key, f.format, f.what))
	}
	c.Down(1)
	foot := in.Foot()
	if foot.Message == "" {
		foot.Message = "any other key: back, nothing is saved"
	}
	foot.Write(c, st.Screen(), keymap.State{})
	return c.String()
}
