package library

import (
	"archive/tar"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/images/manifest"
)

// An export is a tar (POSIX.1-1988 with GNU sizes where needed) of these members in this order, regular files, each at
// most once: manifest.json manifest.sig image.pub image.torrent [used.bin] [hashes.bin] [hooks.bin] and then frames.zst, or cells.bin
// where a version has no compressed cells: the data cells one after the other.
const (
	pubFile   = "image.pub" // the ed25519 public key of the signature, 32 bytes
	cellsFile = "cells.bin"
)

// Fingerprint is how people compare public keys: sha256: and 64 hex digits.
func Fingerprint(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Output is a new file that appears complete under its name or not at all.
type Output struct {
	*os.File
	path string
}

// CreateOutput begins a file; nothing may stand under the name yet.
func CreateOutput(path string) (*Output, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%q is there already: choose another name", path)
		}
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".labswarm-export-*") // mode 0600: an image holds password hashes
	if err != nil {
		return nil, err
	}
	return &Output{f, path}, nil
}

// Commit syncs the file and gives it its name.
func (o *Output) Commit() error {
	err := errors.Join(o.Sync(), o.Close())
	if err == nil {
		err = os.Rename(o.Name(), o.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(o.Name()))
	}
	return syncDir(filepath.Dir(o.path))
}

// Discard removes what was written.
func (o *Output) Discard() { _, _ = o.Close(), os.Remove(o.Name()) } // what failed before is what counts

// NoRoom turns a full disk in mid-write into an error that says how much is wanted. need is in bytes.
func (o *Output) NoRoom(err error, need int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return fmt.Errorf("no room for %q: %d bytes are needed; nothing is left there: %w", o.path, need, err)
}

// Export writes a version to a new file that Import of another server takes. Every cell is compared with the manifest
// before it is written: a damaged one fails the export. It leaves nothing behind when it fails or ctx ends. The signer is
// returned as its fingerprint, which the other server wants to be told.
func (l *Library) Export(ctx context.Context, v *Version, path string, progress func(Progress)) (fingerprint string, err error) {
	fingerprint, err = l.export(ctx, v, path, progress)
	if err != nil {
		return "", fmt.Errorf("export image %s/%s: %w", v.man.Name, v.man.Version, err)
	}
	return fingerprint, nil
}

func (l *Library) export(ctx context.Context, v *Version, path string, progress func(Progress)) (string, error) {
	pub := l.signer(v)
	if pub == nil {
		return "", errors.New("its signer's key is not here")
	}
	out, err := CreateOutput(path)
	if err != nil {
		return "", err
	}
	size := v.man.ShippedBytes()
	if v.frames != nil {
		size = v.FrameBytes() + int64(trailerLen(v.man.Pieces()))
	}
	if err := v.writeTar(ctx, tar.NewWriter(out), pub, size, progress); err != nil {
		out.Discard()
		return "", out.NoRoom(err, size)
	}
	if err := out.Commit(); err != nil {
		return "", out.NoRoom(err, size)
	}
	return Fingerprint(pub), nil
}

// signer returns the public key that signed a version.
func (l *Library) signer(v *Version) ed25519.PublicKey {
	for _, pub := range l.pubs {
		if manifest.VerifySig([]ed25519.PublicKey{pub}, v.json, v.sig) == nil {
			return pub
		}
	}
	return nil
}

// writeTar writes all members; size is that of the last one, bytes.
func (v *Version) writeTar(ctx context.Context, w *tar.Writer, pub ed25519.PublicKey, size int64, progress func(Progress)) error {
	for _, m := range []struct {
		name string
		data []byte
	}{{manifestFile, v.json}, {sigFile, v.sig}, {pubFile, pub}, {torrentFile, v.torrent}, {usedFile, v.usedBin}, {hashesFile, v.hashesBin}, {hooksFile, v.hooksBin}} {
		if m.data == nil {
			continue
		}
		if err := v.member(w, m.name, int64(len(m.data))); err != nil {
			return err
		}
		if _, err := w.Write(m.data); err != nil {
			return err
		}
	}
	name := cellsFile
	if v.frames != nil {
		name = framesFile
	}
	if err := v.member(w, name, size); err != nil {
		return err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := v.writePayload(ctx, w, newReporter("export", v.man.ShippedBytes(), progress)); err != nil {
		return err
	}
	return w.Close()
}

func (v *Version) member(w *tar.Writer, name string, size int64) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: v.man.Created.Truncate(time.Second), Format: tar.FormatGNU})
}

// ReadVerified is ReadPiece that compares with the manifest every time.
func (v *Version) ReadVerified(i int, buf []byte) error {
	if i < 0 || i >= v.man.Pieces() || int64(len(buf)) != v.man.Cell {
		return fmt.Errorf("read piece %d of %d into %d bytes: out of range", i, v.man.Pieces(), len(buf))
	}
	if err := v.readCell(v.man.CellOf(i), buf); err != nil {
		return err
	}
	if !v.matches(i, buf) {
		return v.bad(v.man.CellOf(i), i, "it does not match its SHA-256")
	}
	return nil
}

// writePayload writes the frames and their index, or the cells.
func (v *Version) writePayload(ctx context.Context, w io.Writer, rep *reporter) error {
	check, err := newFrameCheck(v)
	if err != nil {
		return err
	}
	defer check.close()
	buf := make([]byte, v.man.Cell)
	for i := range v.man.Pieces() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if v.frames == nil {
			if err := v.ReadVerified(i, buf); err != nil {
				return err
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		} else {
			ok, err := check.right(i, nil, func(f, _ []byte) error { _, err := w.Write(f); return err })
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("the compressed form of cell %d is damaged: `labswarm image verify --repair %s/%s` makes it again", v.man.CellOf(i), v.man.Name, v.man.Version)
			}
		}
		rep.add(v.man.Cell)
	}
	if v.frames == nil {
		return nil
	}
	trailer := make([]byte, trailerLen(v.man.Pieces()))
	if _, err := v.frames.zst.ReadAt(trailer, v.FrameBytes()); err != nil {
		return err
	}
	_, err = w.Write(trailer)
	return err
}
