package library

import (
	"context"
	"crypto/sha1" // pieces of a BitTorrent v1 file are SHA-1
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"labswarm/images/manifest"
	"labswarm/images/mask"
)

// fetchPrefix begins the names of folders of versions that are being received: .fetch-NAME_VERSION. They outlive the
// process, so that a fetch goes on where it was.
const fetchPrefix = ".fetch-"

// ErrBusy means that another process receives the same version.
var ErrBusy = errors.New("another process receives this version")

// Incoming is a version that is being received: its pieces come one by one, in any order, and may survive the process.
// Publish makes a version of it. It is safe for concurrent use as Version is; one piece is written by one caller at a
// time.
type Incoming struct {
	v     *Version
	lib   *Library
	tmp   *temp
	have  []bool // right on the disk when the fetch began or went on
	dirty []bool // something else was there
}

// Receive begins to receive a version, or goes on: what an earlier process left is read and hashed, nothing else is
// believed. The files are checked first; nothing is written when their signature is not good.
//
// Errors a caller may want to tell apart: NoSpaceError, ErrBusy, fs.ErrExist (the version is here), and those of
// manifest.VerifySig.
func (l *Library) Receive(ctx context.Context, name, version string, f Files, progress func(Progress)) (*Incoming, error) {
	in, err := l.receive(ctx, name, version, f, progress)
	if err != nil {
		return nil, fmt.Errorf("receive image %s/%s: %w", name, version, err)
	}
	return in, nil
}

func (l *Library) receive(ctx context.Context, name, version string, f Files, progress func(Progress)) (_ *Incoming, err error) {
	if !l.copies {
		return nil, ErrReadOnly
	}
	if err := errors.Join(manifest.CheckName(name), manifest.CheckVersion(version)); err != nil {
		return nil, err
	}
	in := &Incoming{lib: l, v: &Version{}}
	if err := in.v.adopt(l, f, name, version); err != nil {
		return nil, err
	}
	if _, err := os.Stat(l.path(name, version)); err == nil {
		return nil, fs.ErrExist
	}
	if in.tmp, err = l.fetchDir(name, version); err != nil {
		return nil, err
	}
	in.v.dir = in.tmp.dir
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	if err := in.open(f); err != nil {
		return nil, l.noSpace(err, in.v.man.ShippedBytes())
	}
	if err := in.scan(ctx, progress); err != nil {
		return nil, err
	}
	missing := int64(0)
	for _, ok := range in.have {
		if !ok {
			missing += in.v.man.Cell
		}
	}
	return in, l.checkSpace(missing)
}

// fetchDir makes or finds the folder and takes the lock that says that somebody is at work.
func (l *Library) fetchDir(name, version string) (*temp, error) {
	return l.holdDir(l.fetchPath(name, version))
}

func (l *Library) fetchPath(name, version string) string {
	return filepath.Join(l.dir, fetchPrefix+name+"_"+version)
}

// open writes the small files anew, whatever is there, and opens disk.raw.
func (in *Incoming) open(f Files) error {
	dir := in.tmp.dir
	for _, name := range []string{framesFile, usedFile, hashesFile, hooksFile, torrentFile, manifestFile, sigFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for name, data := range map[string][]byte{usedFile: f.Used, hashesFile: f.Hashes, hooksFile: f.Hooks, torrentFile: f.Torrent, manifestFile: f.Manifest, sigFile: f.Sig} {
		if data == nil {
			continue
		}
		if err := writeSynced(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	raw, err := os.OpenFile(filepath.Join(dir, rawFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	in.v.raw = raw
	return raw.Truncate(in.v.man.Disk.Size)
}

// scan finds the pieces that are here. Holes need no reading: a data cell is not zero.
func (in *Incoming) scan(ctx context.Context, progress func(Progress)) error {
	v := in.v
	in.have, in.dirty = make([]bool, v.man.Pieces()), make([]bool, v.man.Pieces())
	data, err := dataRanges(v.raw, v.man.Disk.Size)
	if err != nil {
		return err
	}
	allocated := mask.FromUsed(data)
	if progress == nil {
		progress = func(Progress) {}
	}
	rep := newReporter("check", v.man.ShippedBytes(), progress)
	return eachCell(ctx, v.man.Cells, v.man.Cell, func(_ context.Context, buf []byte, cell, ord int64) error {
		defer rep.add(v.man.Cell)
		if !allocated.Touches(cell*v.man.Cell, v.man.Cell) {
			return nil
		}
		err := v.readCell(cell, buf)
		switch {
		case errors.Is(err, syscall.EIO): // written again, it may go to another place on the disk
		case err != nil:
			return err
		default:
			in.have[ord] = sha1.Sum(buf) == v.tor.Hashes[ord]
		}
		in.dirty[ord] = !in.have[ord]
		return nil
	})
}

// Version is what is being received. Its Close is Incoming's business.
func (in *Incoming) Version() *Version { return in.v }

// Have reports whether a piece was here when Receive returned.
func (in *Incoming) Have(piece int) bool { return in.have[piece] }

// Mark takes over what Publish found: Have names all pieces but the bad ones.
func (in *Incoming) Mark(bad []int) {
	for i := range in.have {
		in.have[i] = true
	}
	for _, p := range bad {
		in.have[p] = false
	}
}

// ReadPiece reads a piece back, see Version.ReadPiece.
func (in *Incoming) ReadPiece(piece int, buf []byte) error { return in.v.ReadPiece(piece, buf) }

// WritePiece stores a piece whose SHA-1 has been found right. Its zero ranges become holes.
func (in *Incoming) WritePiece(piece int, buf []byte) error {
	v := in.v
	if piece < 0 || piece >= v.man.Pieces() || int64(len(buf)) != v.man.Cell {
		return fmt.Errorf("write piece %d of %d bytes: out of range", piece, len(buf))
	}
	off := v.man.CellOf(piece) * v.man.Cell
	buf = buf[:min(v.man.Cell, v.man.Disk.Size-off)]
	var err error
	if in.dirty[piece] { // its zeros must replace what is there
		_, err = v.raw.WriteAt(buf, off)
	} else {
		err = writeSparse(v.raw, buf, off)
	}
	if err != nil {
		in.dirty[piece] = true
		return in.lib.noSpace(fmt.Errorf("write image %s/%s at byte %d: %w", v.man.Name, v.man.Version, off, err), v.man.Cell)
	}
	return nil
}

// Publish reads everything back, compares it with the signed SHA-256 of every cell, makes the frame store in the same
// pass and turns the folder into a version. Pieces that are not right come back in bad; nothing is published then, and
// they are to be written again.
func (in *Incoming) Publish(ctx context.Context, progress func(Progress)) (bad []int, err error) {
	v := in.v
	bad, err = in.publish(ctx, progress)
	if err != nil {
		return nil, fmt.Errorf("publish image %s/%s: %w", v.man.Name, v.man.Version, in.lib.noSpace(err, v.man.ShippedBytes()))
	}
	for _, p := range bad {
		in.dirty[p] = true
	}
	return bad, nil
}

func (in *Incoming) publish(ctx context.Context, progress func(Progress)) ([]int, error) {
	v := in.v
	fw, err := in.newFrames()
	if err != nil {
		return nil, err
	}
	res, err := v.verify(ctx, progress, nil, func(ctx context.Context, ord int64, cell []byte) error {
		if fw == nil {
			return nil
		}
		return fw.add(ctx, ord, cell)
	})
	var bad []int
	for _, b := range res.Bad {
		if b.Piece < 0 && err == nil { // nothing but us writes there
			err = b
		}
		bad = append(bad, b.Piece)
	}
	switch {
	case fw == nil:
	case err != nil || len(bad) > 0: // the next Publish makes the frames anew
		err = errors.Join(err, fw.f.Close())
	default:
		err = fw.finish(v.Digest())
	}
	if err != nil || len(bad) > 0 {
		return bad, err
	}
	if err := v.raw.Sync(); err != nil {
		return nil, err
	}
	if err := syncDir(v.dir); err != nil {
		return nil, err
	}
	unlock, err := in.lib.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return nil, in.tmp.rename(in.lib, v.man.Name, v.man.Version)
}

// newFrames starts the frame store; nil when the image has none or there is no room: it only saves time.
func (in *Incoming) newFrames() (*frameWriter, error) {
	v := in.v
	if v.man.Codec != CodecZstd {
		return nil, nil
	}
	var full *NoSpaceError
	if err := in.lib.checkSpace(v.man.ShippedBytes()); errors.As(err, &full) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(v.dir, framesFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return newFrameWriter(v.dir, v.man.Cell)
}

// Close ends the receiving. What is not published stays for the next Receive.
func (in *Incoming) Close() error {
	var err error
	if in.v.raw != nil {
		err = in.v.raw.Close()
	}
	return errors.Join(err, in.tmp.hold.Close())
}

// Pending lists the versions, as name/version, of which a part has been received.
func (l *Library) Pending() ([]string, error) {
	dirs, err := listDirs(l.dir, func(s string) bool { return strings.HasPrefix(s, fetchPrefix) })
	if err != nil {
		return nil, fmt.Errorf("list images in transit: %w", err)
	}
	var out []string
	for _, d := range dirs {
		name, version, _ := strings.Cut(strings.TrimPrefix(d, fetchPrefix), "_")
		if manifest.CheckName(name) == nil && manifest.CheckVersion(version) == nil {
			out = append(out, name+"/"+version)
		}
	}
	return out, nil
}

// Demote turns a version that cannot be used any more into an unfinished one: the next Receive keeps the cells that are
// right. No Version of it may be open.
func (l *Library) Demote(name, version string) error {
	unlock, err := l.lock()
	if err != nil {
		return fmt.Errorf("demote image %s/%s: %w", name, version, err)
	}
	defer unlock()
	err = os.RemoveAll(l.fetchPath(name, version))
	if err == nil {
		err = os.Rename(l.path(name, version), l.fetchPath(name, version))
	}
	if err == nil {
		_ = os.Remove(filepath.Join(l.dir, name)) // goes only when empty
		err = syncDir(l.dir)
	}
	if err != nil {
		return fmt.Errorf("demote image %s/%s: %w", name, version, err)
	}
	return nil
}

// Forget removes what has been received of a version that is not wanted any more. No Incoming of it may be open.
func (l *Library) Forget(name, version string) error {
	tmp, err := l.fetchDir(name, version)
	if err == nil {
		err = tmp.discard()
	}
	if err != nil {
		return fmt.Errorf("forget the unfinished image %s/%s: %w", name, version, err)
	}
	return nil
}

// Repair writes a piece of a published version again, in place, because it was found damaged. Its content must be the
// manifest's: a repair cannot change a version.
func (v *Version) Repair(piece int, buf []byte) error {
	if piece < 0 || piece >= v.man.Pieces() || int64(len(buf)) != v.man.Cell {
		return fmt.Errorf("repair piece %d of %d bytes: out of range", piece, len(buf))
	}
	cell := v.man.CellOf(piece)
	if !v.matches(piece, buf) {
		return v.bad(cell, piece, "what should repair it is not right either")
	}
	return v.rewrite(cell, buf)
}

// rewrite writes the content of a cell of a published version in place, cut short at the disk's end, and syncs it.
func (v *Version) rewrite(cell int64, buf []byte) (err error) {
	off := cell * v.man.Cell
	f, err := os.OpenFile(filepath.Join(v.dir, rawFile), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("repair image %s/%s: %w", v.man.Name, v.man.Version, err)
	}
	defer func() { err = closeInto(err, f.Close()) }()
	if _, err = f.WriteAt(buf[:min(v.man.Cell, v.man.Disk.Size-off)], off); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("repair image %s/%s: write cell %d at byte %d: %w", v.man.Name, v.man.Version, cell, off, err)
	}
	return nil
}
