// Package agenttest makes small images, disks in memory and a server for the
// agent's tests. Images are complete: a real GPT, a signed manifest, a torrent.
// Imported by tests only.
package agenttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/images/metainfo"
	"labswarm/initramfs-agent/bundle"
)

// Options of an image.
type Options struct {
	Sector int   // 512 or 4096; 0 = 512
	Cell   int64 // 0 = 256 KiB, the smallest
	Cells  int   // size of the disk in cells; 0 = 24
	Seed   uint64
	Grow   bool // its partition takes the rest of a bigger disk
}

// Image is an image version with its content.
type Image struct {
	Bundle *bundle.Bundle
	Raw    []byte            // the source disk, unused bytes zero, backup GPT included
	Files  map[string][]byte // as the server hands them out
	Keys   []ed25519.PublicKey
}

// New makes an image: GPT, one partition from 1 MiB on whose used map has data,
// zero runs, holes that are not cell-aligned, and a last used byte near the
// end of the disk.
func New(t testing.TB, o Options) *Image {
	t.Helper()
	if o.Sector == 0 {
		o.Sector = 512
	}
	if o.Cell == 0 {
		o.Cell = 256 << 10
	}
	if o.Cells == 0 {
		o.Cells = 24
	}
	size := int64(o.Cells)*o.Cell + 256<<10 // the last cell hangs over the end
	if o.Cell == 256<<10 {
		size = int64(o.Cells)*o.Cell + 128<<10
	}
	raw := make([]byte, size)
	const start = 1 << 20
	end := (size - 1<<20) / (1 << 20) * (1 << 20)
	putGPT(raw, o.Sector, start, end)
	rnd := rand.New(rand.NewPCG(1, o.Seed))
	used := []manifest.Extent{{Off: 0, Len: start}}
	for off := int64(start); off < end; {
		n := min((1+rnd.Int64N(o.Cell/2048))*4096, end-off)
		switch rnd.IntN(4) {
		case 0: // a hole
		case 1: // used and zero: sometimes whole cells of it
			n = min(n+o.Cell, end-off)
			used = append(used, manifest.Extent{Off: off, Len: n})
		default:
			for i := off; i < off+n; i += 8 {
				binary.LittleEndian.PutUint64(raw[i:], rnd.Uint64())
			}
			used = append(used, manifest.Extent{Off: off, Len: n})
		}
		off += n
	}
	last := manifest.Extent{Off: end - 4096, Len: 4096}
	for i := last.Off; i < last.End(); i++ {
		raw[i] = byte(rnd.Uint32() | 1)
	}
	used = manifest.Merge(append(used, last))
	return seal(t, &manifest.Manifest{
		Format: manifest.Format, Name: "test", Version: "2026-11-20.1", Created: time.Unix(0, 0).UTC(),
		Disk: manifest.Disk{Size: size, Sector: o.Sector, Label: "gpt", GUID: "11111111-2222-3333-4444-555555555555", MinSize: end + 1<<20},
		Cell: o.Cell, Boot: "unknown", Codec: "none", Forced: []string{},
		Parts: []manifest.Part{{N: 1, Start: start, Size: end - start, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4",
			GUID: "66666666-7777-8888-9999-aaaaaaaaaaaa", Attrs: "0000000000000000", FS: "unknown", Map: "whole", Clean: true, UsedBytes: end - start, Grow: o.Grow}},
	}, raw, used)
}

// Without is the same image whose used map lacks some bytes: a reader that was wrong.
func (im *Image) Without(t testing.TB, e manifest.Extent) *Image {
	t.Helper()
	var used []manifest.Extent
	for _, u := range im.Bundle.Manifest.Used() {
		for _, rest := range []manifest.Extent{{Off: u.Off, Len: min(u.End(), e.Off) - u.Off}, {Off: max(u.Off, e.End()), Len: u.End() - max(u.Off, e.End())}} {
			if rest.Len > 0 {
				used = append(used, rest)
			}
		}
	}
	m := *im.Bundle.Manifest
	return seal(t, &m, im.Raw, used)
}

// seal cuts the content into cells, puts them into the manifest, and signs the result.
func seal(t testing.TB, m *manifest.Manifest, raw []byte, used []manifest.Extent) *Image {
	t.Helper()
	size := int64(len(raw))
	m.UsedList, m.Cells, m.Zero, m.HashList, m.UsedBlob, m.HashesBlob = used, []manifest.Run{}, []manifest.Run{}, nil, nil, nil
	masker := mask.FromUsed(used)
	var sha1s [][20]byte
	buf := make([]byte, m.Cell)
	for _, r := range manifest.TouchedCells(used, m.Cell) {
		for c := r.First; c < r.First+r.Count; c++ {
			clear(buf)
			copy(buf, raw[c*m.Cell:min((c+1)*m.Cell, size)])
			masker.Mask(buf, c*m.Cell)
			if mask.IsZero(buf) {
				m.Zero = manifest.AppendCell(m.Zero, c)
				continue
			}
			m.Cells = manifest.AppendCell(m.Cells, c)
			sum := sha256.Sum256(buf)
			m.HashList = append(m.HashList, sum[:]...)
			sha1s = append(sha1s, sha1.Sum(buf)) //nolint:gosec // BEP 3
		}
	}
	tor, infohash, err := metainfo.Build(m.Name+"-"+m.Version, m.Cell, sha1s)
	if err != nil {
		t.Fatal(err)
	}
	m.InfoHash = hex.EncodeToString(infohash[:])
	js, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, []ed25519.PublicKey{pub}, raw, map[string][]byte{"manifest.json": js, "manifest.sig": manifest.Sign(key, js), "image.torrent": tor})
}

// load makes an Image of its files.
func load(t testing.TB, keys []ed25519.PublicKey, raw []byte, files map[string][]byte) *Image {
	t.Helper()
	im := &Image{Raw: raw, Keys: keys, Files: files}
	sum := manifest.Digest(files["manifest.json"])
	var err error
	if im.Bundle, err = bundle.Load(im.File, keys, hex.EncodeToString(sum[:])); err != nil {
		t.Fatal(err)
	}
	return im
}

// FromDisk makes an image of a raw disk, as `labswarm image import` does.
func FromDisk(t testing.TB, file string) *Image {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := []ed25519.PublicKey{pub}
	lib, err := library.Open(t.TempDir(), key, keys)
	if err != nil {
		t.Fatal(err)
	}
	v, err := lib.Import(t.Context(), library.ImportOptions{Name: "system", File: file, Cell: 256 << 10, Codec: library.CodecNone})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"manifest.json": v.ManifestJSON(), "manifest.sig": v.Sig(), "image.torrent": v.TorrentBytes()}
	for name, b := range map[string][]byte{"used.bin": v.UsedBin(), "hooks.bin": v.HooksBin(), "hashes.bin": v.HashesBin()} {
		if b != nil {
			files[name] = b
		}
	}
	raw, err := os.ReadFile(filepath.Join(v.Dir(), "disk.raw")) // what is not used is not in it
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	return load(t, keys, raw, files)
}

// File is a bundle.Fetch over Files.
func (im *Image) File(name string, limit int64) ([]byte, error) {
	b, ok := im.Files[name]
	if !ok || int64(len(b)) > limit {
		return nil, fmt.Errorf("no file %s within %d bytes", name, limit)
	}
	return b, nil
}

// Piece returns the masked content of a piece.
func (im *Image) Piece(i int) []byte {
	m := im.Bundle.Manifest
	off := m.CellOf(i) * m.Cell
	buf := make([]byte, m.Cell)
	copy(buf, im.Raw[off:min(off+m.Cell, int64(len(im.Raw)))])
	im.Bundle.Masker.Mask(buf, off)
	return buf
}

// Check fails the test unless Equal.
func (im *Image) Check(t testing.TB, disk []byte) {
	t.Helper()
	if !im.Equal(disk) {
		t.Fatal("used bytes on the disk differ from the image's")
	}
}

// Equal compares every byte the image uses with a disk's content, except the
// partition table, which is fitted to the disk's size.
func (im *Image) Equal(disk []byte) bool {
	for _, e := range im.Bundle.Manifest.Used() {
		off := max(e.Off, 64<<10)
		if off < e.End() && !bytes.Equal(disk[off:e.End()], im.Raw[off:e.End()]) {
			return false
		}
	}
	return true
}

// putGPT writes a protective MBR and both GPTs with one partition: UEFI 2.10,
// chapter 5.
func putGPT(raw []byte, sector int, start, end int64) {
	le := binary.LittleEndian
	sec := int64(sector)
	last := uint64(int64(len(raw))/sec - 1)
	copy(raw, "boot code of the test image")
	mbr := raw[446:]
	mbr[4] = 0xEE
	le.PutUint32(mbr[8:], 1)
	le.PutUint32(mbr[12:], uint32(last))
	raw[510], raw[511] = 0x55, 0xAA
	entries := make([]byte, 128*128)
	copy(entries, "\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4")
	copy(entries[16:], "\x66\x66\x66\x66\x77\x77\x88\x88\x99\x99\xaa\xaa\xaa\xaa\xaa\xaa")
	le.PutUint64(entries[32:], uint64(start/sec))
	le.PutUint64(entries[40:], uint64(end/sec-1))
	entSectors := uint64((int64(len(entries)) + sec - 1) / sec)
	header := func(my, alt, ent uint64) []byte {
		h := make([]byte, sec)
		copy(h, "EFI PART\x00\x00\x01\x00")
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], my)
		le.PutUint64(h[32:], alt)
		le.PutUint64(h[40:], 2+entSectors)
		le.PutUint64(h[48:], last-entSectors-1)
		copy(h[56:], "\x11\x11\x11\x11\x22\x22\x33\x33\x44\x44\x55\x55\x55\x55\x55\x55")
		le.PutUint64(h[72:], ent)
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	copy(raw[sec:], header(1, last, 2))
	copy(raw[2*sec:], entries)
	copy(raw[int64(last)*sec:], header(last, 1, last-entSectors))
	copy(raw[int64(last-entSectors)*sec:], entries)
}
