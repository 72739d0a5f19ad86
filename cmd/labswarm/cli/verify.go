package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"labswarm/images/library"
	"labswarm/internal/units"
)

func newImageVerify(e *env) *cobra.Command {
	repair := false
	cmd := &cobra.Command{
		Use: "verify NAME[/VERSION]", Short: "read every cell again and compare it with the signed manifest", Args: exact(1),
		Long: `Verify reads every cell and every compressed cell of an image. A damaged cell makes the
image useless: exit code 1, import it again. A damaged compressed cell is never sent, its
cell travels uncompressed; --repair makes the compressed cells again from the cells.`,
		RunE: func(cmd *cobra.Command, args []string) error { return e.verify(cmd.Context(), args[0], repair) },
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "make damaged or missing compressed cells again")
	return cmd
}

func (e *env) verify(ctx context.Context, arg string, repair bool) (err error) {
	v, err := e.version(arg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	start := time.Now()
	p := e.progress()
	res, err := v.Verify(ctx, func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) })
	p.end()
	if err != nil {
		return err
	}
	repaired := 0
	if repair && res.OK() && !res.FramesOK() {
		repaired = max(len(res.BadFrames), 1)
		if res.FramesErr != nil {
			repaired = res.DataCells
		}
		if res, err = e.repairFrames(ctx, v); err != nil {
			return err
		}
	}
	if e.json {
		if err := e.printJSON(verifyJSON(v, res, repaired)); err != nil {
			return err
		}
	}
	for _, b := range res.Bad {
		e.hint("%v", b)
	}
	for _, c := range res.BadFrames {
		e.hint("image %s/%s: the compressed form of cell %d is damaged in the store; the cell itself was checked too", v.Name(), v.Version(), c)
	}
	switch {
	case !res.OK():
		return fmt.Errorf("verify %s/%s: %d cells are damaged; the image must not be deployed: import it again", v.Name(), v.Version(), len(res.Bad))
	case res.FramesErr != nil:
		return fmt.Errorf("verify %s/%s: all cells are right, but there are no compressed ones: %w; the image can be deployed and travels uncompressed; --repair makes them again", v.Name(), v.Version(), res.FramesErr)
	case !res.FramesOK():
		return fmt.Errorf("verify %s/%s: all cells are right, but %d compressed ones are damaged; the image can be deployed and these cells travel uncompressed; --repair makes them again", v.Name(), v.Version(), len(res.BadFrames))
	case e.json:
		return nil
	}
	what := fmt.Sprintf("%d compressed cells", res.Frames)
	if repaired > 0 {
		what += fmt.Sprintf(" (%d made again)", repaired)
	}
	return e.printf("%s/%s: %d data cells, %d zero cells and %s are right (%s in %s)\n", v.Name(), v.Version(),
		res.DataCells, res.ZeroCells, what, units.FormatBytes(res.Bytes), time.Since(start).Round(10*time.Millisecond))
}

// repairFrames makes the compressed cells of v again and verifies what came of it.
func (e *env) repairFrames(ctx context.Context, v *library.Version) (res library.Result, err error) {
	lib, err := e.library()
	if err != nil {
		return res, err
	}
	p := e.progress()
	defer p.end()
	note := func(what string) func(library.Progress) {
		return func(l library.Progress) { p.update(what, l.Done, l.Total, l.Rate) }
	}
	if err := lib.RepairFrames(ctx, v, note("repair")); err != nil {
		return res, err
	}
	again, err := lib.Get(v.Name(), v.Version())
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, again.Close()) }()
	return again.Verify(ctx, note("verify"))
}

func verifyJSON(v *library.Version, res library.Result, repaired int) map[string]any {
	bad, frames := []string{}, res.BadFrames
	for _, b := range res.Bad {
		bad = append(bad, b.Error())
	}
	if frames == nil {
		frames = []int64{}
	}
	out := map[string]any{"name": v.Name(), "version": v.Version(), "ok": res.OK(),
		"data_cells": res.DataCells, "zero_cells": res.ZeroCells, "bytes": res.Bytes, "bad": bad,
		"frames_ok": res.FramesOK(), "frames": res.Frames, "bad_frame_cells": frames, "frames_repaired": repaired}
	if res.FramesErr != nil {
		out["frames_error"] = res.FramesErr.Error()
	}
	return out
}
