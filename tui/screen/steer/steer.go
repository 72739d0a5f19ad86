// Package steer is what the console may ask for a host in its job, from every
// screen that shows hosts: the question, and the request behind it. What is
// allowed is the server's business.
package steer

import (
	"context"
	"fmt"
	"strings"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/snapshot"
)

// Running reports whether a host is in a job that has not ended.
func Running(h *snapshot.Host) bool {
	return h != nil && h.Job != nil && !component.Ended(h.Job)
}

// Ask returns the question for a key about hosts; ok is false for other keys.
func Ask(id keymap.ID, hosts []*snapshot.Host) (e screen.Effect, ok bool) {
	if id == keymap.Wake {
		return wake(hosts), true
	}
	if id != keymap.Retry && id != keymap.Skip {
		return e, false
	}
	var todo []target
	for _, h := range hosts {
		if !Running(h) {
			continue
		}
		if act, fits := fitting(id, h.Slot); fits {
			todo = append(todo, target{h.Job.ID, h.Name, act})
		}
	}
	if len(todo) == 0 {
		if id == keymap.Retry {
			return screen.Effect{Note: "retry: no such host has failed or is held"}, true
		}
		return screen.Effect{Note: "leave out: no such host is still before its point of no return"}, true
	}
	return screen.Effect{Open: question(id, todo)}, true
}

type target struct {
	job  uint64
	host string
	act  string
}

// fitting is what a key means for a host in this state.
func fitting(id keymap.ID, s *api.Slot) (act string, ok bool) {
	switch {
	case s == nil:
		return "", false
	case id == keymap.Skip:
		return api.ActSkip, !s.State.Ended() && !s.PONR
	case s.State == api.StateHeld:
		return api.ActRelease, true
	}
	return api.ActRetry, s.State.Ended() && !s.State.Good()
}

func question(id keymap.ID, todo []target) confirm.State {
	names := make([]string, len(todo))
	for i, t := range todo {
		names[i] = t.host
	}
	list := strings.Join(names, " ")
	st := confirm.State{Title: fmt.Sprintf("Another chance for %d hosts?", len(todo)), Facts: []string{list,
		"A host that failed is armed again: it is reimaged when it next boots from the network. A held one goes on."}}
	doing, said := "retry "+list, fmt.Sprintf("%d hosts may go on", len(todo))
	if id == keymap.Skip {
		st = confirm.State{Title: fmt.Sprintf("Leave %d hosts out of their job?", len(todo)), Facts: []string{list, "They boot their own disks; nothing was written to them."}}
		doing, said = "leave out "+list, fmt.Sprintf("%d hosts are left out", len(todo))
	}
	st.Action = screen.Action{Doing: doing, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
		for i, t := range todo {
			if _, err := c.ActOnHost(ctx, t.job, t.host, t.act); err != nil {
				return screen.Done{}, fmt.Errorf("%s (%d of %d done before it): %w", t.host, i, len(todo), err)
			}
		}
		return screen.Done{Said: said}, nil
	}}
	return st
}
