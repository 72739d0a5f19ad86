package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"labswarm/internal/version"
)

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "the version of this program", Args: exact(0), RunE: func(_ *cobra.Command, _ []string) error {
		if e.json {
			return e.printJSON(map[string]string{"version": version.String(), "go": runtime.Version()})
		}
		return e.printf("labswarm %s (%s)\n", version.String(), runtime.Version())
	}}
}
