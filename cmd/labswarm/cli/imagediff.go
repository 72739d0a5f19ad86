package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"labswarm/images/library"
	"labswarm/internal/units"
)

func newImageDiff(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "diff A B", Short: "what a PC that holds version A fetches for version B", Args: exact(2),
		Long: `Diff compares two versions, each NAME or NAME/VERSION, and says how many cells a PC that was
just given A needs for B, partition by partition. Files people left on the PC cost nothing
unless they lie where B has something.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			a, err := e.version(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			b, err := e.version(args[1])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			p := e.progress()
			d, err := library.Compare(cmd.Context(), a, b, func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) })
			p.end()
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(d)
			}
			return e.printDiff(d)
		}}
}

func (e *env) printDiff(d library.Diff) error {
	err := e.printf("%s -> %s: %d of %d cells to fetch = %s, %s on the wire; %d cells to zero\n", d.From, d.To, d.Fetch, d.Cells,
		units.FormatBytes(d.Bytes), units.FormatBytes(d.Wire), d.Zero)
	for _, p := range d.Parts {
		if err != nil {
			break
		}
		if p.N == 0 {
			err = e.printf("  outside of partitions  %8d cells %10s\n", p.Fetch, units.FormatBytes(p.Bytes))
			continue
		}
		err = e.printf("  part %-3d %-12s  %8d cells %10s  %d to zero\n", p.N, p.FS, p.Fetch, units.FormatBytes(p.Bytes), p.Zero)
	}
	return err
}
