package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/internal/units"
)

func newRelay(e *env) *cobra.Command {
	add := &cobra.Command{
		Use: "add NAME", Short: "let a second source take part; prints its token once", Args: exact(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := e.client()
			defer c.Close()
			t, err := c.AddRelay(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(t)
			}
			if err := e.printf("%s\n", t.Token); err != nil {
				return err
			}
			e.hint("relay %s may take part. Its token above is shown this once; put it into a file that only root reads. On the other machine:", t.Name)
			e.hint("  labswarm seed --server %s --server-key %s --token-file FILE --images NAME[,NAME]", t.Server, t.ServerKey)
			return nil
		},
	}
	ls := &cobra.Command{Use: "ls", Short: "list the relays and how they are", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		list, err := c.Relays(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		if len(list) == 0 {
			e.hint("no relays: labswarm relay add NAME")
		}
		for _, r := range list {
			if err := e.printf("%s", relayLines(r, time.Now())); err != nil {
				return err
			}
		}
		return nil
	}}
	rm := &cobra.Command{Use: "rm NAME", Short: "end a relay: its token is void, hosts fetch from others", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		if err := c.RemoveRelay(cmd.Context(), args[0]); err != nil {
			return err
		}
		return e.printf("relay %s is removed\n", args[0])
	}}
	return group("relay", "second sources (labswarm seed)", add, ls, rm)
}

// relayLines is a relay for people: one line, and one more for each image.
func relayLines(r api.Relay, now time.Time) string {
	var b strings.Builder
	state := "never seen by this server since it started"
	switch {
	case r.Alive:
		state = "there"
	case !r.Seen.IsZero():
		state = fmt.Sprintf("SILENT for %v", now.Sub(r.Seen).Round(time.Second))
	}
	fmt.Fprintf(&b, "%-16s %-22s room %-10s %s\n", r.Name, orDash(r.Addr), orDash(r.Room), state)
	for _, m := range r.Images {
		percent := 0.0
		if m.Pieces > 0 {
			percent = 100 * float64(m.Have) / float64(m.Pieces)
		}
		fmt.Fprintf(&b, "  %-30s %5.1f %%  sent %s  %s\n", m.Name+"/"+m.Version, percent, units.FormatBytes(m.Sent), m.State)
		if text := scrubLine(m, now); text != "" {
			fmt.Fprintf(&b, "    %s\n", text)
		}
	}
	for _, text := range append(missing(r.Missing), r.Error) {
		if text != "" {
			fmt.Fprintf(&b, "  ! %s\n", text)
		}
	}
	return b.String()
}

// scrubLine is how the relay's disk has kept an image, "" when nothing is known.
func scrubLine(m api.RelayImage, now time.Time) string {
	s := m.Scrub
	if s == nil {
		return ""
	}
	var parts []string
	if s.Running {
		text := fmt.Sprintf("verifies its disk, %d of %d cells", s.Done, m.Pieces)
		if s.Paused {
			text += ", waits while hosts are served"
		}
		parts = append(parts, text)
	}
	if !s.Last.IsZero() {
		found := "all right"
		if s.Damaged > 0 || s.Frames > 0 {
			found = fmt.Sprintf("%d cells and %d compressed ones were damaged, made good again; look at the disk (smartctl)", s.Damaged, s.Frames)
		}
		parts = append(parts, fmt.Sprintf("verified %v ago: %s", now.Sub(s.Last).Round(time.Second), found))
	}
	if !s.Next.IsZero() {
		parts = append(parts, "next "+s.Next.Local().Format("2006-01-02 15:04"))
	}
	return strings.Join(parts, "; ")
}

func missing(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	return []string{"this server has no image " + strings.Join(names, ", ")}
}
