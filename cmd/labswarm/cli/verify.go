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
image useless: exit code 1, and the version goes into quarantine as by a scrub: no new job
may use it. A damaged compressed cell is never sent, its cell travels uncompressed.
--repair makes the one from the other; a cell damaged in both forms is fetched back from a
relay or a PC of a running job that holds it. When all is right the quarantine ends.`,
		RunE: func(cmd *cobra.Command, args []string) error { return e.verify(cmd.Context(), args[0], repair) },
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "make damaged cells again from their compressed form, and compressed ones from the cells")
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
	digest := fmt.Sprintf("%x", v.Digest())
	if !res.OK() {
		if err := e.quarantine(ctx, v, digest, res); err != nil {
			return err
		}
	}
	found := res
	var made library.Mended
	if repair && !(res.OK() && res.FramesOK()) {
		if made, err = e.repair(ctx, v, digest, res); err != nil {
			return err
		}
		if made.Note != nil {
			e.hint("labswarm: note: %v", made.Note)
		}
		res = made.Result
	}
	if !found.OK() {
		s := library.Scrubbed{Found: found, Result: res, Cells: made.Cells, Frames: made.Frames, Fetched: made.Fetched, Note: made.Note}
		if err := e.outcome(ctx, v, digest, s); err != nil {
			return err
		}
	}
	if e.json {
		if err := e.printJSON(verifyJSON(v, res, made)); err != nil {
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
		return fmt.Errorf("verify %s/%s: %d cells are damaged; the image must not be deployed and is in quarantine: %s", v.Name(), v.Version(), len(res.Bad), advice(repair, made))
	case res.FramesErr != nil:
		return fmt.Errorf("verify %s/%s: all cells are right, but there are no compressed ones: %w; the image can be deployed and travels uncompressed; --repair makes them again", v.Name(), v.Version(), res.FramesErr)
	case !res.FramesOK():
		return fmt.Errorf("verify %s/%s: all cells are right, but %d compressed ones are damaged; the image can be deployed and these cells travel uncompressed; --repair makes them again", v.Name(), v.Version(), len(res.BadFrames))
	case e.json:
		return nil
	}
	what := fmt.Sprintf("%d compressed cells", res.Frames)
	if made.Cells+made.Frames > 0 {
		what += fmt.Sprintf(" (%d cells and %d compressed ones made again)", made.Cells, made.Frames)
	}
	if f := made.Fetched.Text(); f != "" {
		what += " (" + f + ")"
	}
	return e.printf("%s/%s: %d data cells, %d zero cells and %s are right (%s in %s)\n", v.Name(), v.Version(),
		res.DataCells, res.ZeroCells, what, units.FormatBytes(res.Bytes), time.Since(start).Round(10*time.Millisecond))
}

// advice is what to do about a version that is damaged after verify.
func advice(repaired bool, made library.Mended) string {
	if !repaired {
		return "try --repair"
	}
	if f := made.Fetched.Text(); f != "" {
		return f + ": " + library.Advice
	}
	return library.Advice
}

// repair makes again what can be had from the other form or from others, and verifies what came of it.
func (e *env) repair(ctx context.Context, v *library.Version, digest string, found library.Result) (library.Mended, error) {
	lib, err := e.library()
	if err != nil {
		return library.Mended{}, err
	}
	p := e.progress()
	defer p.end()
	return lib.Mend(ctx, v, found, e.fetchCells(lib, digest), func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) })
}

func verifyJSON(v *library.Version, res library.Result, made library.Mended) map[string]any {
	bad, frames := []string{}, res.BadFrames
	for _, b := range res.Bad {
		bad = append(bad, b.Error())
	}
	if frames == nil {
		frames = []int64{}
	}
	out := map[string]any{"name": v.Name(), "version": v.Version(), "ok": res.OK(),
		"data_cells": res.DataCells, "zero_cells": res.ZeroCells, "bytes": res.Bytes, "bad": bad,
		"frames_ok": res.FramesOK(), "frames": res.Frames, "bad_frame_cells": frames, "cells_repaired": made.Cells, "frames_repaired": made.Frames,
		"cells_fetched": made.Fetched.Cells, "fetched_from": append([]string{}, made.Fetched.From...)}
	if res.FramesErr != nil {
		out["frames_error"] = res.FramesErr.Error()
	}
	return out
}
