package library

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"labswarm/images/manifest"
	"labswarm/images/metainfo"
)

// UnknownSignerError means that an export was signed by a key that this server does not know and was not told.
type UnknownSignerError struct {
	File, Fingerprint string
	Told              string // by the admin, "" = nothing
}

func (e *UnknownSignerError) Error() string {
	if e.Told != "" {
		return fmt.Sprintf("%q was signed by key %s, not by %s: do not use it unless you know why", e.File, e.Fingerprint, e.Told)
	}
	return fmt.Sprintf("%q was signed by another server, key %s: compare that with what `labswarm image export` printed there, then repeat with --from-key %s", e.File, e.Fingerprint, e.Fingerprint)
}

// IsExport tells whether a file begins like an export.
func IsExport(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // read only
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return false
	}
	h, err := tar.NewReader(f).Next()
	return err == nil && h.Name == manifestFile
}

// section is where a member of an export lies in its file, bytes.
type section struct{ off, size int64 }

// members finds the members of an export of size bytes: known names, each once, regular files, the payload last.
func members(r io.ReaderAt, size int64) (map[string]section, error) {
	limits := map[string]int64{manifestFile: manifest.MaxJSON, sigFile: manifest.SigSize, pubFile: ed25519.PublicKeySize,
		torrentFile: metainfo.MaxSize, usedFile: MaxUsed, hashesFile: MaxHashes, hooksFile: MaxHooks, framesFile: manifest.MaxDisk, cellsFile: manifest.MaxDisk}
	at := io.NewSectionReader(r, 0, size)
	t := tar.NewReader(at)
	out := map[string]section{}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is cut off or damaged: %w", err)
		}
		limit, known := limits[h.Name]
		_, twice := out[h.Name]
		if !known || twice || h.Typeflag != tar.TypeReg || h.Size <= 0 || h.Size > limit || len(h.PAXRecords) > 0 {
			return nil, fmt.Errorf("it has a member %.60q of %d bytes, which no export has", h.Name, h.Size)
		}
		if out[framesFile].size+out[cellsFile].size > 0 {
			return nil, fmt.Errorf("member %q stands behind the cells", h.Name)
		}
		off, err := at.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > size-off {
			return nil, fmt.Errorf("it is cut off: %s has %d bytes, %d are there", h.Name, h.Size, size-off)
		}
		out[h.Name] = section{off, h.Size}
	}
	for _, name := range []string{manifestFile, sigFile, pubFile, torrentFile} {
		if out[name].size == 0 {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	if out[framesFile].size+out[cellsFile].size == 0 {
		return nil, errors.New("it is cut off: the cells are missing")
	}
	return out, nil
}

// exported is an opened export: signature, manifest, torrent and index are right, the cells are not read yet.
type exported struct {
	*Version
	cells io.ReaderAt // nil: there are frames
	check *frameCheck
}

// openExport reads all of an export but its cells. Its signer must be one of l's keys, or have the given fingerprint.
func (l *Library) openExport(f *os.File, size int64, fingerprint string) (*exported, error) {
	secs, err := members(f, size)
	if err != nil {
		return nil, err
	}
	get := func(name string) []byte {
		s, ok := secs[name]
		if !ok || err != nil {
			return nil
		}
		b := make([]byte, s.size) // members has bounded it, also by what the file holds
		_, err = f.ReadAt(b, s.off)
		return b
	}
	pub := ed25519.PublicKey(get(pubFile))
	files := Files{Manifest: get(manifestFile), Sig: get(sigFile), Torrent: get(torrentFile), Used: get(usedFile), Hashes: get(hashesFile), Hooks: get(hooksFile)}
	if err != nil {
		return nil, err
	}
	if err := l.trusts(pub, f.Name(), fingerprint); err != nil {
		return nil, err
	}
	// The names are not ours to choose: what is signed counts, and only the content is taken over.
	man, err := manifest.Parse(files.Manifest)
	if err != nil {
		return nil, err
	}
	e := &exported{Version: &Version{}}
	if err := e.adopt(&Library{pubs: []ed25519.PublicKey{pub}}, files, man.Name, man.Version); err != nil {
		return nil, err
	}
	if s, ok := secs[cellsFile]; ok {
		if s.size != e.man.ShippedBytes() {
			return nil, fmt.Errorf("%s has %d bytes; %d cells want %d", cellsFile, s.size, e.man.Pieces(), e.man.ShippedBytes())
		}
		e.cells = io.NewSectionReader(f, s.off, s.size)
		return e, nil
	}
	return e, e.openFrameSection(f, secs[framesFile])
}

// trusts tells whether what pub signed may become an image here.
func (l *Library) trusts(pub ed25519.PublicKey, file, fingerprint string) error {
	if len(pub) != ed25519.PublicKeySize {
		return fmt.Errorf("%s has %d bytes; want %d", pubFile, len(pub), ed25519.PublicKeySize)
	}
	if slices.ContainsFunc(l.pubs, func(own ed25519.PublicKey) bool { return bytes.Equal(own, pub) }) || Fingerprint(pub) == fingerprint {
		return nil
	}
	return &UnknownSignerError{File: file, Fingerprint: Fingerprint(pub), Told: fingerprint}
}

func (e *exported) openFrameSection(f *os.File, s section) error {
	trailer := make([]byte, trailerLen(e.man.Pieces()))
	end := s.size - int64(len(trailer))
	if end < 0 {
		return fmt.Errorf("%s is cut off: it has %d bytes", framesFile, s.size)
	}
	if _, err := f.ReadAt(trailer, s.off+end); err != nil {
		return err
	}
	entries, err := parseTrailer(trailer, e.man.Cell, e.man.Pieces(), e.Digest(), end)
	if err != nil {
		return err
	}
	e.frames = &frameStore{zst: f, at: s.off, index: entries, bad: make([]atomic.Uint64, (e.man.Pieces()+63)/64)}
	return nil
}

// cell reads a piece into buf, compared with the manifest, and returns its compressed form; nil when the
// export has none.
func (e *exported) cell(piece int, buf []byte) (f []byte, err error) {
	if e.cells != nil {
		_, err := e.cells.ReadAt(buf, int64(piece)*e.man.Cell)
		if err == nil && !e.matches(piece, buf) {
			err = fmt.Errorf("cell %d does not match the signed manifest", e.man.CellOf(piece))
		}
		return nil, err
	}
	ok, err := e.check.right(piece, nil, func(b, plain []byte) error {
		copy(buf, plain)
		f = bytes.Clone(b)
		return nil
	})
	if err == nil && !ok {
		err = fmt.Errorf("cell %d is damaged: its compressed form does not match the signed manifest", e.man.CellOf(piece))
	}
	return f, err
}
