package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"labswarm/api"
)

func newHostWake(e *env) *cobra.Command {
	var req api.WakeRequest
	cmd := &cobra.Command{Use: "wake (HOST... | --room ROOM)", Short: "switch hosts on (Wake-on-LAN), 20 at a time", RunE: func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) == (req.Room == "") {
			return usage(errors.New("host wake needs either names of hosts or --room"))
		}
		req.Hosts = args
		c := e.client()
		defer c.Close()
		r, err := c.Wake(cmd.Context(), req)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(r)
		}
		return e.printf("waking %d hosts; the last packet is out in %s\n", r.Hosts, seconds(max(r.TakesS, 1)))
	}}
	cmd.Flags().StringVar(&req.Room, "room", "", "all hosts of a room")
	return cmd
}
