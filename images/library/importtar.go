package library

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
)

// Files that a version made of another server's export has besides: its manifest and signature as they came. They prove
// where the image is from; nothing reads them.
const (
	originFile    = "origin.json"
	originSigFile = "origin.sig"
)

// ImportExport makes a new version from a file that Export wrote, here or on another server. fingerprint is that of the
// other server's key, "" when the export is of this one. Signature, tables and every cell are checked; then the version
// gets a number and a signature of its own. Options but Name, File, Cell, Force, OSHint, Codec, Progress and Warn have no
// meaning. It leaves nothing behind when it fails or ctx ends.
//
// Errors a caller may want to tell apart: UnknownSignerError, those of manifest.VerifySig, NoSpaceError, UnchangedError,
// ErrReadOnly, ctx.Err().
func (l *Library) ImportExport(ctx context.Context, o ImportOptions, fingerprint string) (v *Version, err error) {
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	version, err := l.importExport(ctx, o, fingerprint)
	if err != nil {
		var unchanged *UnchangedError
		if errors.As(err, &unchanged) {
			return nil, err
		}
		return nil, fmt.Errorf("import image %s from export %q: %w", o.Name, o.File, err)
	}
	return l.open(o.Name, version)
}

func (l *Library) importExport(ctx context.Context, o ImportOptions, fingerprint string) (version string, err error) {
	f, err := os.Open(o.File)
	if err != nil {
		return "", err
	}
	defer func() { err = closeInto(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", errors.New("it is no file")
	}
	e, err := l.openExport(f, st.Size(), fingerprint)
	if err != nil {
		return "", err
	}
	if e.check, err = newFrameCheck(e.Version); err != nil {
		return "", err
	}
	defer e.check.close()
	j := &importJob{lib: l, opt: o, cell: e.man.Cell, plan: planOf(e.man), work: e.man.Used()}
	defer func() { err = closeInto(err, j.base.close()) }()
	if o.Hooks == nil {
		j.opt.Hooks = hooksOf(e.Version)
	}
	if o.OSHint == "" {
		j.opt.OSHint = e.man.OSHint
	}
	newest, err := l.newest(o.Name)
	if err != nil {
		return "", err
	}
	if j.base, err = newBase(newest, false); err != nil {
		return "", errors.Join(err, newest.Close())
	}
	o.Cell = e.man.Cell
	if _, err := cellFor(o, newest, e.man.Used()); err != nil {
		return "", err
	}
	return j.adopt(ctx, e)
}

// planOf takes over what a signed manifest says of its disk.
func planOf(m *manifest.Manifest) *plan {
	return &plan{disk: m.Disk, parts: m.Parts, used: m.Used(), boot: m.Boot, force: m.Forced}
}

// adopt writes the cells of an export and publishes them.
func (j *importJob) adopt(ctx context.Context, e *exported) (version string, err error) {
	tmp, err := j.lib.newTemp()
	if err != nil {
		return "", err
	}
	defer func() {
		if j.frames != nil {
			err = closeInto(err, j.frames.f.Close())
		}
		if err2 := tmp.discard(); err == nil {
			err = err2
		}
	}()
	if err := j.writeExport(ctx, e, tmp.dir); err != nil {
		return "", j.lib.noSpace(err, e.man.ShippedBytes())
	}
	for name, data := range map[string][]byte{originFile: e.json, originSigFile: e.sig} {
		if err := writeSynced(filepath.Join(tmp.dir, name), data); err != nil {
			return "", j.lib.noSpace(err, e.man.ShippedBytes())
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	version, err = j.publish(tmp)
	return version, j.lib.noSpace(err, e.man.ShippedBytes())
}

// writeExport fills disk.raw and the frame store in dir.
func (j *importJob) writeExport(ctx context.Context, e *exported, dir string) (err error) {
	raw, err := j.newRaw(dir, e.man.Disk.Size, e.man.ShippedBytes())
	if err != nil {
		return err
	}
	defer func() { err = closeInto(err, raw.Close()) }()
	if j.frames, err = j.newFrames(dir); err != nil {
		return err
	}
	room := j.lib.newRoom(e.man.ShippedBytes())
	rep := newReporter("copy", e.man.ShippedBytes(), j.opt.Progress)
	err = eachCell(ctx, e.man.Cells, j.cell, func(ctx context.Context, buf []byte, cell, ord int64) error {
		f, err := e.cell(int(ord), buf)
		if err != nil {
			return err
		}
		off := cell * j.cell
		if err := j.base.write(raw, buf[:min(j.cell, e.man.Disk.Size-off)], off, j.base.piece(cell, e.man.PieceSHA256(int(ord)))); err != nil {
			return err
		}
		if j.frames != nil {
			if f == nil {
				err = j.frames.add(ctx, ord, buf)
			} else {
				err = j.frames.keep(ctx, ord, f)
			}
		}
		rep.add(j.cell)
		return errors.Join(err, room.take(j.cell))
	})
	if err != nil {
		return err
	}
	if err := j.base.trim(raw, e.man.Cells, j.cell, e.man.Disk.Size); err != nil {
		return err
	}
	j.sums = cellSums{data: slices.Clone(e.man.Cells), zero: append([]manifest.Run{}, e.man.Zero...), sha1: e.tor.Hashes, sha256: allHashes(e.man)}
	if err := checkTable(raw, e.man); err != nil {
		return err
	}
	return j.syncFiles(raw, rep)
}

func allHashes(m *manifest.Manifest) []byte {
	out := make([]byte, 0, 32*m.Pieces())
	for i := range m.Pieces() {
		sum := m.PieceSHA256(i)
		out = append(out, sum[:]...)
	}
	return out
}

// checkTable compares the partition table in the cells with the manifest: what is shown is what is written.
func checkTable(raw *os.File, m *manifest.Manifest) error {
	t, err := part.Read(raw, m.Disk.Size, m.Disk.Sector)
	if err != nil {
		return fmt.Errorf("the partition table in its cells: %w", err)
	}
	same := t.Label == m.Disk.Label && len(t.Parts) == len(m.Parts)
	for i := 0; same && i < len(t.Parts); i++ {
		same = t.Parts[i].N == m.Parts[i].N && t.Parts[i].Start == m.Parts[i].Start && t.Parts[i].Size == m.Parts[i].Size
	}
	if !same {
		return errors.New("the partition table in its cells is not the one that its manifest describes")
	}
	return nil
}
