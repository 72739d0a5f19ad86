package cli

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
	"labswarm/server/daemon"
)

func newState(e *env) *cobra.Command {
	return group("state", "copies of the server's state: rooms, PCs, jobs, events", newStateLs(e), newStateSnapshot(e), newStateRestore(e))
}

func newStateLs(e *env) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "the copies, newest first; the server makes one every 10 minutes when something changed, and keeps three", Args: exact(0),
		RunE: func(*cobra.Command, []string) error {
			list, err := daemon.Snapshots(e.stateDir)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(list)
			}
			if len(list) == 0 {
				e.hint("no copies yet")
			}
			for _, s := range list {
				if err := e.printf("%s  %s  %s\n", s.Time.Local().Format(time.DateTime), units.FormatBytes(s.Bytes), s.Name); err != nil {
					return err
				}
			}
			return nil
		}}
}

func newStateSnapshot(e *env) *cobra.Command {
	return &cobra.Command{Use: "snapshot", Short: "copy the state now, with or without a running server", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		s, err := e.snapshot(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(s)
		}
		return e.printf("%s  (%s)\n", s.Path, units.FormatBytes(s.Bytes))
	}}
}

// snapshot asks the server; when none runs, this process does it.
func (e *env) snapshot(ctx context.Context) (api.Snapshot, error) {
	c := e.client()
	defer c.Close()
	s, err := c.Snapshot(ctx)
	var away *client.UnreachableError
	if errors.As(err, &away) && !errors.Is(err, fs.ErrPermission) {
		return daemon.SnapshotState(ctx, e.stateDir)
	}
	return s, err
}

func newStateRestore(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "restore NAME|FILE", Short: "put a copy in the place of the state; the server must be stopped", Args: exact(1),
		Long: `Restore puts a copy in the place of the server's state. The present state is kept beside it.
What happened after the copy was made is not in it: at the next start all live jobs are HELD,
and orders that PCs still have are void.`,
		RunE: func(_ *cobra.Command, args []string) error {
			aside, err := daemon.RestoreState(e.stateDir, args[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]string{"restored": args[0], "previous": aside})
			}
			if aside == "" {
				aside = "there was none"
			}
			return e.printf("restored %s; live jobs will be held at the next start\nthe state until now: %s\n", args[0], aside)
		},
	}
}
