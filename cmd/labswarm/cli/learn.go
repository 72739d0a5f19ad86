package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
)

func newLearn(e *env) *cobra.Command {
	var l api.Learn
	var off, walk bool
	cmd := &cobra.Command{Use: "learn ROOM [--minutes 30] [--walk | --off]", Short: "let unknown PCs of a room show a code and get a seat", Args: exact(1),
		Long: `Learn opens learn mode for one room: unknown PCs in its subnets (on the lab segment, when it
has none) that boot from the network show a six-digit code. labswarm host enrol CODE gives
them a seat. Nothing can be written meanwhile: what they boot holds no code that writes a
disk. Learn mode ends by itself.

With --walk you walk through the room: it asks for one free seat after the other, you switch
that PC on and press Enter, and the next new PC that appears gets the seat.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := e.client()
			defer c.Close()
			if off {
				if err := c.CloseLearn(cmd.Context()); err != nil {
					return err
				}
				return e.printf("learn mode is closed\n")
			}
			l.Room = args[0]
			var seats []api.Seat
			if walk { // before anything is opened
				r, err := c.Room(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if seats = freeSeats(r); len(seats) == 0 {
					return fmt.Errorf("walk through room %s: it has no free seat; labswarm room set %s --rows N --cols N makes seats", r.Name, r.Name)
				}
			}
			out, err := c.OpenLearn(cmd.Context(), l)
			if err != nil {
				return err
			}
			if walk {
				return e.walk(cmd.Context(), c, out, seats)
			}
			if e.json {
				return e.printJSON(out)
			}
			return e.printf("learn mode is open for room %s until %s. PCs that boot from the network there show a code:\n  labswarm host enrol CODE --room %s --seat SEAT\n",
				out.Room, out.Until.Local().Format(time.TimeOnly), out.Room)
		}}
	cmd.Flags().IntVar(&l.Minutes, "minutes", 30, "how long, at most 240")
	cmd.Flags().StringVar(&l.After, "after", "reboot", "what a PC does when it has its seat: reboot, poweroff")
	cmd.Flags().BoolVar(&walk, "walk", false, "seat after seat, one Enter each")
	cmd.Flags().BoolVar(&off, "off", false, "end learn mode")
	return cmd
}

func freeSeats(r api.Room) []api.Seat {
	return slices.DeleteFunc(slices.Clone(r.Seats), func(s api.Seat) bool { return s.Host != "" })
}

// walk binds the PCs that appear to the seats, in the order of both.
func (e *env) walk(ctx context.Context, c *client.Client, l api.Learn, seats []api.Seat) error {
	waiting, err := c.Enrolments(ctx)
	if err != nil {
		return err
	}
	seen := map[string]bool{} // a PC that waited before the walk is not the one at this seat
	for _, w := range waiting {
		seen[w.ID] = true
		e.hint("a PC with MAC %s waits already; give it a seat by its code", w.MAC)
	}
	lines, stop := readLines(e)
	defer stop()
	bound := []api.Host{}
	for _, s := range seats {
		e.hint("Seat %s of %s: switch its PC on (network boot), then press Enter. s = skip this seat, q = end.", s.Label, l.Room)
		word, err := nextLine(ctx, lines)
		if err != nil || word == "q" {
			break
		}
		if word == "s" {
			continue
		}
		w, err := e.appears(ctx, c, seen)
		if err != nil {
			return err
		}
		h, err := c.Bind(ctx, api.EnrolBind{ID: w.ID, Room: l.Room, Seat: s.Label})
		if err != nil {
			return err
		}
		seen[w.ID] = true
		bound = append(bound, h)
		if !e.json {
			if err := e.printf("seat %s: host %s, MAC %s, %s %s, serial %s\n", h.Seat, h.Name, h.MAC, w.Vendor, w.Product, orDash(w.Serial)); err != nil {
				return err
			}
		}
	}
	if e.json {
		return e.printJSON(bound)
	}
	return e.printf("%d PCs have their seats; learn mode ends at %s, or now: labswarm room learn %s --off\n", len(bound), l.Until.Local().Format(time.TimeOnly), l.Room)
}

// appears waits for the next PC that was not seen yet. It ends with learn mode.
func (e *env) appears(ctx context.Context, c *client.Client, seen map[string]bool) (api.Enrolment, error) {
	for told := false; ; told = true {
		list, err := c.Enrolments(ctx)
		if err != nil {
			return api.Enrolment{}, err
		}
		for _, w := range list {
			if !seen[w.ID] {
				return w, nil
			}
		}
		l, err := c.Learn(ctx)
		if err != nil {
			return api.Enrolment{}, err
		}
		if l == nil {
			return api.Enrolment{}, errors.New("learn mode has ended: open it again")
		}
		if !told {
			e.hint("waiting for the PC ...")
		}
		select {
		case <-ctx.Done():
			return api.Enrolment{}, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// readLines reads standard input beside the walk, so that it can be
// interrupted.
func readLines(e *env) (<-chan string, func()) {
	out, done := make(chan string), make(chan struct{})
	go func() { // ends with the input, or with the line after stop: the program ends then
		defer close(out)
		sc := bufio.NewScanner(e.in)
		for sc.Scan() {
			select {
			case out <- strings.ToLower(strings.TrimSpace(sc.Text())):
			case <-done:
				return
			}
		}
	}()
	return out, func() { close(done) }
}

func nextLine(ctx context.Context, lines <-chan string) (string, error) {
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case l, ok := <-lines:
		if !ok {
			return "q", nil
		}
		return l, nil
	}
}

func newWaiting(e *env) *cobra.Command {
	return &cobra.Command{Use: "waiting", Short: "new PCs that show a code and wait for a seat", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		list, err := c.Enrolments(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		if len(list) == 0 {
			e.hint("no new PC waits; labswarm room learn ROOM lets them in")
		}
		for _, w := range list {
			if err := e.printf("%-18s %-15s %s %s, serial %s, since %s\n", w.MAC, w.IP, w.Vendor, w.Product, orDash(w.Serial), ago(w.Appeared)); err != nil {
				return err
			}
		}
		return nil
	}}
}
