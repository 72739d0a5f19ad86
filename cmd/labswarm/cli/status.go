package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
)

func newStatus(e *env) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "is the server running, and where", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		s, err := c.Server(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(s)
		}
		ready := "ready"
		if !s.Ready {
			ready = "starting"
		}
		more := ""
		if s.Learn != nil {
			more = fmt.Sprintf("LEARN MODE is open for room %s until %s\n", s.Learn.Room, s.Learn.Until.Local().Format(time.TimeOnly))
		}
		if s.Questions > 0 {
			more += fmt.Sprintf("%d questions wait for an answer: labswarm host questions\n", s.Questions)
		}
		return e.printf("%s: labswarm %s, %s since %s\ninterface %s, address %s, DHCP mode %s, key %s\n%d hosts, %d live jobs\n%s",
			s.Name, s.Version, ready, s.Started.Local().Format(time.DateTime), s.Interface, s.Address, s.DHCP, s.KeyID, s.Hosts, s.LiveJobs, more)
	}}
}

func newEvents(e *env) *cobra.Command {
	var follow bool
	var since uint64
	var text string
	cmd := &cobra.Command{Use: "events", Short: "the server's event log", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		want, err := parseFilter(text, eventColumns)
		if err != nil {
			return err
		}
		c := e.client()
		defer c.Close()
		show := func(ev api.Event) {
			if !want.Match(eventRow(ev)) {
				return
			}
			if e.json {
				_ = e.printLine(eventLine{ev, "event"}) // a closed pipe ends with the next signal
				return
			}
			_ = e.printf("%s %-5s %-8s %s\n", ev.Time.Local().Format(time.TimeOnly), ev.Level, orDash(ev.Host), ev.Text) // as above
		}
		if follow {
			err := c.Follow(cmd.Context(), since, show, nil, func(err error) { e.hint("labswarm: %v; trying again", err) })
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		// Without --follow: what the log holds now. The first tick marks its end.
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		err = c.Events(ctx, since, show, func(api.Tick) { cancel() })
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			return nil
		}
		return err
	}}
	filterFlag(cmd, &text, eventColumns)
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with new events")
	cmd.Flags().Uint64Var(&since, "since", 0, "only events after this sequence number")
	return cmd
}
