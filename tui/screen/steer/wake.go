package steer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/snapshot"
)

// wake asks whether hosts are to be switched on.
func wake(hosts []*snapshot.Host) screen.Effect {
	var names []string
	for _, h := range hosts {
		if h != nil {
			names = append(names, h.Name)
		}
	}
	if len(names) == 0 {
		return screen.Effect{Note: "wake: there is no host"}
	}
	what := fmt.Sprintf("%d hosts", len(names))
	if len(names) == 1 {
		what = names[0]
	}
	return screen.Effect{Open: confirm.State{
		Title: fmt.Sprintf("Switch on %s?", what),
		Facts: []string{strings.Join(names, " "), "Nothing is written by that: a host that no job waits for starts its own system."},
		Action: screen.Action{Doing: "wake " + what, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			r, err := c.Wake(ctx, api.WakeRequest{Hosts: names})
			if err != nil {
				return screen.Done{}, err
			}
			said := fmt.Sprintf("packets go out to %d hosts", r.Hosts)
			if r.Hosts == 1 {
				said = "packets go out to " + names[0]
			}
			if r.TakesS > 0 {
				said += ", the last in " + units.FormatDuration(time.Duration(r.TakesS)*time.Second)
			}
			return screen.Done{Said: said}, nil
		}},
	}}
}
