package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"labswarm/images/library"
	"labswarm/images/restore"
)

func newImageExport(e *env) *cobra.Command {
	as := ""
	cmd := &cobra.Command{
		Use: "export NAME[/VERSION] FILE", Short: "write an image to a file: for another labswarm, or a disk for other programs", Args: exact(2),
		Long: `Export writes a new file. Without --as it holds everything another labswarm server needs, signed:
` + "`labswarm image import NAME FILE`" + ` there wants to be told the fingerprint that this prints.
--as raw and --as qcow2 write the whole disk for other programs, with both partition tables.
Every cell is checked on its way. On any error or Ctrl-C nothing is left behind.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if as != "" && as != restore.Raw && as != restore.QCOW2 {
				return usage(fmt.Errorf("--as %q is unknown; there are %s and %s, and without it a file for labswarm", as, restore.Raw, restore.QCOW2))
			}
			return e.export(cmd.Context(), args[0], args[1], as)
		}}
	cmd.Flags().StringVar(&as, "as", "", "raw or qcow2: the disk for other programs")
	return cmd
}

func (e *env) export(ctx context.Context, arg, path, as string) (err error) {
	v, err := e.version(arg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	p := e.progress()
	note := func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) }
	fingerprint := ""
	if as == "" {
		lib, err2 := e.browse()
		if err2 != nil {
			return err2
		}
		fingerprint, err = lib.Export(ctx, v, path, note)
	} else {
		err = restore.Save(ctx, v, path, as, note)
	}
	p.end()
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("export %q: interrupted, nothing is left behind: %w", path, context.Cause(ctx))
		}
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"name": v.Name(), "version": v.Version(), "file": path, "as": as, "bytes": st.Size(), "fingerprint": fingerprint})
	}
	if as != "" {
		return e.printf("%s/%s is written to %s\n", v.Name(), v.Version(), path)
	}
	return e.printf("%s/%s is written to %s, signed by key %s\n", v.Name(), v.Version(), path, fingerprint)
}

// importExport is `image import` of a file that `image export` wrote.
func (e *env) importExport(ctx context.Context, o library.ImportOptions, fromKey string) error {
	if o.Cell != 0 {
		return usage(errors.New("--cell: an export has its cells already"))
	}
	lib, err := e.library()
	if err != nil {
		return err
	}
	p := e.progress()
	o.Progress = func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) }
	v, err := lib.ImportExport(ctx, o, fromKey)
	p.end()
	if err != nil {
		var signer *library.UnknownSignerError
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("import %q: interrupted, nothing is left behind: %w", o.File, context.Cause(ctx))
		case errors.As(err, &signer):
			return &codeError{ExitNotAllowed, err}
		}
		return err
	}
	return e.imported(v)
}
