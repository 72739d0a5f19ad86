package images

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// pinned is the cell that says so.
func pinned(st api.ImageState) string {
	if st.Pinned {
		return "pin"
	}
	return ""
}

// checked is the last check of a version in a few words.
func checked(st api.ImageState, in screen.In) (string, theme.Role) {
	switch {
	case st.Quarantine != "" && len(st.Bad) > 0:
		return fmt.Sprintf("%d BAD CELLS", len(st.Bad)), theme.Bad
	case st.Quarantine != "":
		return "QUARANTINED", theme.Bad
	case st.Checked.IsZero():
		return "never", theme.Dim
	}
	return "ok " + component.Clock(st.Checked, in.Now), theme.Good
}

// stateLines is what the server knows of a version beside its files.
func stateLines(st api.ImageState, in screen.In) []string {
	var out []string
	if st.Quarantine != "" {
		out = append(out, "QUARANTINED, no new job may use it: "+snapshot.Clean(st.Quarantine))
	}
	if len(st.Bad) > 0 {
		out = append(out, "bad cells: "+cells(st.Bad))
	}
	if st.Healing != "" {
		out = append(out, "healing: "+snapshot.Clean(st.Healing))
	}
	if !st.Checked.IsZero() {
		line := "read and compared " + component.Clock(st.Checked, in.Now)
		if st.Outcome != "" {
			line += ": " + snapshot.Clean(st.Outcome)
		}
		out = append(out, line)
	}
	if len(st.Refs) > 0 {
		out = append(out, "in use: "+snapshot.Clean(strings.Join(st.Refs, "; ")))
	}
	return out
}

// cells lists the first of many.
func cells(list []int64) string {
	const most = 8
	var out []string
	for i, n := range list {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		out = append(out, strconv.FormatInt(n, 10))
	}
	return strings.Join(out, " ")
}

// question asks before a version, NAME/VERSION, is pinned or removed. Whether
// it may be removed is the server's to say.
func question(id keymap.ID, key string, in screen.In) confirm.State {
	name, version, _ := strings.Cut(key, "/")
	f, _ := in.Data.(Facts)
	state := f.States[key]
	if id == keymap.Pin {
		to := !state.Pinned
		st := confirm.State{Title: "Pin " + key + "?", Facts: []string{"It is kept: neither a person nor the clean-up removes it before the pin is taken away."}}
		said := key + " is pinned"
		if !to {
			st = confirm.State{Title: "Take the pin of " + key + " away?", Facts: []string{"It may be removed then, if nobody else needs it."}}
			said = key + " is not pinned any more"
		}
		st.Action = screen.Action{Doing: map[bool]string{true: "pin ", false: "unpin "}[to] + key, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			return screen.Done{Said: said}, c.PinImage(ctx, api.ImagePin{Name: name, Version: version, Pinned: to})
		}}
		return st
	}
	facts := []string{"The version is removed from the server's disk for good."}
	if len(state.Refs) > 0 {
		facts = append(facts, "In use: "+snapshot.Clean(strings.Join(state.Refs, "; "))+". The server refuses to remove it then.")
	}
	return confirm.State{Title: "REMOVE " + key, Facts: facts, Want: key, What: "the version's name", Action: screen.Action{
		Doing: "remove " + key,
		Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			return screen.Done{Said: key + " is removed"}, c.RemoveImage(ctx, api.ImageRemove{Name: name, Version: version})
		},
	}}
}
