package cli

import (
	"github.com/spf13/cobra"

	"labswarm/api"
)

func newKnownHosts(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "known-hosts ROOM", Short: "SSH host keys made by the last deployment, for ~/.ssh/known_hosts", Args: exact(1),
		Long: `Known-hosts prints the public SSH keys that each PC of a room got when it was last
deployed, in the form of a known_hosts file. A PC whose image keeps its own keys, or has
no SSH server, has no line.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := e.client()
			defer c.Close()
			hosts, err := hostsOf(cmd, c, args[0])
			if err != nil {
				return err
			}
			jobs, err := c.Jobs(cmd.Context())
			if err != nil {
				return err
			}
			lines := knownHosts(hosts, jobs)
			if e.json {
				return e.printJSON(lines)
			}
			if len(lines) == 0 {
				e.hint("no PC of %s has got SSH keys in a deployment", args[0])
			}
			for _, l := range lines {
				if err := e.printf("%s\n", l); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// knownHosts makes the lines of a known_hosts file (sshd(8)). jobs are newest
// first: the last good deployment of a host says which keys it has, or that the
// server does not know them.
func knownHosts(hosts []api.Host, jobs []api.Job) []string {
	lines := []string{}
	for _, h := range hosts {
		names := h.Name
		if h.LastIP != "" {
			names += "," + h.LastIP
		}
		for _, key := range lastKeys(h.Name, jobs) {
			lines = append(lines, names+" "+key)
		}
	}
	return lines
}

func lastKeys(host string, jobs []api.Job) []string {
	for _, j := range jobs {
		for _, s := range j.Slots {
			if s.Host == host && s.State.Good() {
				return s.HostKeys
			}
		}
	}
	return nil
}
