package library

import (
	"crypto/sha1" // pieces of a BitTorrent v1 file are SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/images/metainfo"
)

// File names inside a version folder.
const (
	rawFile      = "disk.raw"
	manifestFile = "manifest.json"
	sigFile      = "manifest.sig"
	torrentFile  = "image.torrent"
	usedFile     = "used.bin"
	hashesFile   = "hashes.bin"
	hooksFile    = "hooks.bin"
)

// Version is one opened image version. It is safe for concurrent use until Close.
type Version struct {
	dir       string
	man       *manifest.Manifest
	json, sig []byte
	usedBin   []byte
	hashesBin []byte
	hooksBin  []byte
	torrent   []byte
	tor       *metainfo.Torrent
	masker    *mask.Masker
	raw       *os.File
	checked   []atomic.Uint64 // one bit per piece: it matched its SHA-1 once in this process
	frames    *frameStore     // nil: none that can be used
	framesErr error           // why, when the manifest promises them
}

func (l *Library) open(name, version string) (*Version, error) {
	v := &Version{dir: l.path(name, version)}
	if err := v.load(l, name, version); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if _, err2 := os.Stat(v.dir); errors.Is(err2, fs.ErrNotExist) {
				err = fmt.Errorf("%w; `labswarm image ls` shows what there is", ErrNotFound)
			}
		}
		return nil, fmt.Errorf("open image %s/%s: %w", name, version, err)
	}
	raw, err := os.Open(filepath.Join(v.dir, rawFile))
	if err != nil {
		return nil, fmt.Errorf("open image %s/%s: %w", name, version, err)
	}
	st, err := raw.Stat()
	if err == nil && st.Size() != v.man.Disk.Size {
		err = fmt.Errorf("%s has %d bytes; the manifest says %d", rawFile, st.Size(), v.man.Disk.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("open image %s/%s: %w", name, version, errors.Join(err, raw.Close()))
	}
	v.raw = raw
	v.frames, v.framesErr = v.openFrames()
	if v.man.Codec != CodecZstd && errors.Is(v.framesErr, fs.ErrNotExist) {
		v.framesErr = nil // none were wanted
	}
	return v, nil
}

func (v *Version) load(l *Library, name, version string) error {
	f := Files{}
	var err error
	for _, r := range []struct {
		file     string
		limit    int64
		optional bool
		to       *[]byte
	}{
		{manifestFile, manifest.MaxJSON, false, &f.Manifest},
		{sigFile, manifest.SigSize, false, &f.Sig},
		{usedFile, MaxUsed, true, &f.Used},
		{hashesFile, MaxHashes, true, &f.Hashes},
		{hooksFile, MaxHooks, true, &f.Hooks},
		{torrentFile, metainfo.MaxSize, false, &f.Torrent},
	} {
		*r.to, err = v.read(r.file, r.limit)
		if err != nil && !(r.optional && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return v.adopt(l, f, name, version)
}

// Limits of the optional files, bytes; those of the others are manifest.MaxJSON, manifest.SigSize and metainfo.MaxSize.
const (
	MaxUsed   = 20 * manifest.MaxExtents
	MaxHashes = 32 * manifest.MaxPieces
	MaxHooks  = manifest.MaxHookBytes
)

// Files are the small files of a version, as they travel.
type Files struct {
	Manifest, Sig, Torrent []byte
	Used, Hashes           []byte // nil when their content stands in the manifest
	Hooks                  []byte // nil when there are none
}

// adopt checks signature, manifest and torrent and takes them over.
func (v *Version) adopt(l *Library, f Files, name, version string) (err error) {
	v.json, v.sig, v.usedBin, v.hashesBin, v.hooksBin, v.torrent = f.Manifest, f.Sig, f.Used, f.Hashes, f.Hooks, f.Torrent
	if err := manifest.VerifySig(l.pubs, v.json, v.sig); err != nil {
		return err
	}
	if v.man, err = manifest.Load(v.json, v.usedBin, v.hashesBin); err != nil {
		return err
	}
	if _, err := v.man.AttachHooks(v.hooksBin); err != nil {
		return err
	}
	if v.man.Name != name || v.man.Version != version {
		return fmt.Errorf("the manifest is of %s/%s", v.man.Name, v.man.Version)
	}
	if v.tor, err = metainfo.Parse(v.torrent); err != nil {
		return err
	}
	if hex.EncodeToString(v.tor.InfoHash[:]) != v.man.InfoHash || len(v.tor.Hashes) != v.man.Pieces() || v.tor.PieceLength != v.man.Cell {
		return fmt.Errorf("%s is not the one the manifest names", torrentFile)
	}
	v.masker = mask.New(v.man)
	v.checked = make([]atomic.Uint64, (v.man.Pieces()+63)/64)
	return nil
}

func (v *Version) read(file string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(v.dir, file))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s exceeds the limit of %d bytes", file, limit)
	}
	return b, err
}

// Close closes the files of the version.
func (v *Version) Close() error {
	if v.frames == nil {
		return v.raw.Close()
	}
	return errors.Join(v.raw.Close(), v.frames.zst.Close())
}

// Name returns the image's name.
func (v *Version) Name() string { return v.man.Name }

// Version returns the version as YYYY-MM-DD.N.
func (v *Version) Version() string { return v.man.Version }

// Dir returns the version's folder.
func (v *Version) Dir() string { return v.dir }

// Manifest returns the loaded manifest. It must not be changed.
func (v *Version) Manifest() *manifest.Manifest { return v.man }

// ManifestJSON returns the signed bytes.
func (v *Version) ManifestJSON() []byte { return v.json }

// Digest returns the SHA-256 of the signed bytes, by which an order names the image.
func (v *Version) Digest() [32]byte { return manifest.Digest(v.json) }

// Sig returns manifest.sig.
func (v *Version) Sig() []byte { return v.sig }

// UsedBin returns used.bin; nil when the used map stands in the manifest.
func (v *Version) UsedBin() []byte { return v.usedBin }

// HashesBin returns hashes.bin; nil when the hashes stand in the manifest.
func (v *Version) HashesBin() []byte { return v.hashesBin }

// HooksBin returns hooks.bin; nil when there are no hooks with content.
func (v *Version) HooksBin() []byte { return v.hooksBin }

// TorrentBytes returns image.torrent.
func (v *Version) TorrentBytes() []byte { return v.torrent }

// Torrent returns the parsed image.torrent. It must not be changed.
func (v *Version) Torrent() *metainfo.Torrent { return v.tor }

// InfoHash returns the torrent's info-hash.
func (v *Version) InfoHash() [20]byte { return v.tor.InfoHash }

// ReadPiece reads piece i, masked and padded, into buf, which must be one cell long. The first read of each piece in
// the life of this Version is checked against its SHA-1; it fails with BadCellError when it does not match.
func (v *Version) ReadPiece(i int, buf []byte) error {
	if i < 0 || i >= v.man.Pieces() || int64(len(buf)) != v.man.Cell {
		return fmt.Errorf("read piece %d of %d into %d bytes: out of range", i, v.man.Pieces(), len(buf))
	}
	if err := v.readCell(v.man.CellOf(i), buf); err != nil {
		return err
	}
	word, bit := &v.checked[i/64], uint64(1)<<(i%64)
	if word.Load()&bit != 0 {
		return nil
	}
	if sha1.Sum(buf) != v.tor.Hashes[i] {
		return v.bad(v.man.CellOf(i), i, "it does not match its SHA-1")
	}
	word.Or(bit)
	return nil
}

// Raw returns the file that holds piece i as it is hashed, and its offset there in bytes; false when the cell is cut
// short by the disk's end. Nothing is checked: who sends these bytes hashes them first.
func (v *Version) Raw(i int) (f *os.File, off int64, ok bool) {
	if i < 0 || i >= v.man.Pieces() {
		return nil, 0, false
	}
	off = v.man.CellOf(i) * v.man.Cell
	return v.raw, off, off+v.man.Cell <= v.man.Disk.Size
}

func (v *Version) bad(cell int64, piece int, why string) *BadCellError {
	return &BadCellError{Image: v.man.Name + "/" + v.man.Version, Cell: cell, Piece: piece, Why: why}
}

// readCell reads a grid cell masked. The unused bytes of disk.raw are holes already; masking again costs little and
// keeps a hand-edited file from leaking anything.
func (v *Version) readCell(cell int64, buf []byte) error {
	off := cell * v.man.Cell
	n := min(v.man.Cell, v.man.Disk.Size-off)
	if got, err := v.raw.ReadAt(buf[:n], off); int64(got) != n {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read image %s/%s at byte %d: %w", v.man.Name, v.man.Version, off, err)
	}
	v.masker.Mask(buf, off)
	return nil
}
