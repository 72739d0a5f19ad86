package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/server/config"
	"labswarm/server/daemon"
)

func newDoctor(e *env) *cobra.Command {
	var from configFlags
	cmd := &cobra.Command{
		Use: "doctor", Short: "examine server, machine and network; each finding with its cure", Args: exact(0),
		Long: `Doctor asks the running server to examine itself, its machine and its network. Without a
server it examines the machine and the network from here (as root). It changes nothing. In the
network it sends one DHCP request of a PC that does not exist.

Exit code: 0 all is well, 3 with warnings, 1 when something fails.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := e.client()
			defer c.Close()
			d, err := c.Doctor(cmd.Context())
			var away *client.UnreachableError
			if errors.As(err, &away) && !errors.Is(err, fs.ErrPermission) {
				src := from.source(cmd)
				src.Flags["state-dir"] = e.stateDir
				loaded, lerr := config.Complete(src)
				if lerr != nil {
					return lerr
				}
				d, err = daemon.DoctorAlone(cmd.Context(), loaded.Config)
			}
			if err != nil {
				return err
			}
			return e.checkup(d)
		},
	}
	from.add(cmd)
	return cmd
}

// checkup prints the findings; its error carries the exit code.
func (e *env) checkup(d api.Checkup) error {
	if e.json {
		if err := e.printJSON(d); err != nil {
			return err
		}
	} else {
		for _, c := range d.Checks {
			word := c.Result
			if word != api.CheckOK {
				word = strings.ToUpper(word)
			}
			line := fmt.Sprintf("%-4s  %-11s %s", word, c.Name, c.Text)
			if c.Advice != "" {
				line += "\n                  -> " + c.Advice
			}
			if err := e.printf("%s\n", line); err != nil {
				return err
			}
		}
	}
	switch d.Result {
	case api.CheckFail:
		return &codeError{code: ExitFailed}
	case api.CheckWarn:
		return &codeError{code: ExitPartial}
	}
	return nil
}
