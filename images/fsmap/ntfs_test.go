package fsmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// mkNTFS makes an NTFS volume with n files of up to maxSize bytes.
func mkNTFS(t testing.TB, k *fixture.Kit, size int64, n, maxSize int, options ...string) string {
	t.Helper()
	img := k.Sparse("ntfs.img", size)
	k.Run("ntfs-3g", "", "mkntfs", append(append([]string{"-q", "-F", "-f", "-L", "Lab ä"}, options...), img)...)
	for i := range n {
		path := k.Path("file")
		if err := os.WriteFile(path, fixture.Random(uint64(i), 1+i*7919%maxSize), 0o600); err != nil {
			t.Fatal(err)
		}
		k.Run("ntfs-3g", "", "ntfscp", "-q", img, path, fmt.Sprintf("file%d.bin", i))
	}
	return img
}

// ntfsSame checks that a restored volume is in order and equals its original.
func ntfsSame(t testing.TB, k *fixture.Kit, img, restored string) {
	t.Helper()
	if out, err := ntfsCompare(k, img, restored); err != nil {
		t.Errorf("after restoring: %v\n%s", err, out)
	}
}

func ntfsCompare(k *fixture.Kit, img, restored string) (string, error) {
	if out, err := k.Try("ntfs-3g", "", "ntfsfix", "-n", restored); err != nil {
		return out, fmt.Errorf("ntfsfix: %w", err)
	}
	out, err := k.Try("ntfs-3g", "", "ntfscmp", "-P", img, restored)
	// ntfscmp's exit code is 0 whatever it finds; it prints only what differs.
	if lines := strings.Split(strings.TrimSpace(out), "\n"); err == nil && len(lines) > 1 {
		err = fmt.Errorf("ntfscmp lists %d lines", len(lines)-1)
	}
	return out, err
}

func TestNTFS(t *testing.T) {
	for _, v := range []struct {
		name     string
		size     int64
		n, bytes int
		opts     []string
	}{
		{"512", 40 * MiB, 12, 200 << 10, []string{"-c", "512"}},
		{"4k-odd-end", 40*MiB + 1536, 12, 200 << 10, []string{"-c", "4096"}},
		{"64k", 64 * MiB, 12, 200 << 10, []string{"-c", "65536"}},
		{"2M", 700 * MiB, 3, 200 << 10, []string{"-c", "2097152"}},
		{"4Kn", 64 * MiB, 12, 200 << 10, []string{"-s", "4096", "-c", "4096"}},
		{"4Kn-64k", 64 * MiB, 3, 200 << 10, []string{"-s", "4096", "-c", "65536"}},
		{"nearly-full", 24 * MiB, 7, 2900 << 10, []string{"-c", "1024"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			img := mkNTFS(t, k, v.size, v.n, v.bytes, v.opts...)
			um := used(t, img)
			if um.FS != "ntfs" || um.Kind != "reader" || um.State != manifest.StateClean || um.Label != "Lab ä" || len(um.UUID) != 16 {
				t.Errorf("Used = %+v", um)
			}
			// Not in the list of partclone: the places where the copy of the boot sector may be, and what rounding to its
			// clusters makes of them.
			agrees(t, k, "ntfs", img, um, 2*4096)
			if v.size <= 64*MiB {
				ntfsSame(t, k, img, restore(t, k, img, um.Extents))
			}
		})
	}
}

func TestNTFSOracleHasTeeth(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkNTFS(t, k, 16*MiB, 4, 100<<10)
	um := used(t, img)
	cut := append([]manifest.Extent{}, um.Extents...)
	cut[len(cut)-1].Len = 0
	if out, err := ntfsCompare(k, img, restore(t, k, img, cut)); err == nil {
		t.Errorf("without the last extent (the boot sector's copy) nobody noticed:\n%s", out)
	}
	cut = append([]manifest.Extent{}, um.Extents...)
	for i := range cut {
		if cut[i].Len > 100<<10 {
			cut[i].Len -= 4096
			break
		}
	}
	if out, err := ntfsCompare(k, img, restore(t, k, img, cut)); err == nil {
		t.Errorf("4096 bytes are missing and nobody noticed:\n%s", out)
	}
}

// ntfsVolume edits a volume's records in memory. Clusters are 512 bytes, so that $Bitmap has many.
type ntfsVolume struct {
	t   testing.TB
	b   []byte
	mft int64 // byte
}

func openNTFS(t testing.TB, img string) *ntfsVolume {
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	return &ntfsVolume{t, b, int64(le.Uint64(b[48:])) * 512}
}

// record returns an MFT record with its fixups undone; seal puts them back.
func (v *ntfsVolume) record(n int64) []byte {
	b := v.b[v.mft+n*1024:][:1024]
	usa := le.Uint16(b[4:])
	copy(b[510:], b[usa+2:usa+4])
	copy(b[1022:], b[usa+4:usa+6])
	return b
}

func (v *ntfsVolume) seal(b []byte) {
	usa := le.Uint16(b[4:])
	copy(b[usa+2:], b[510:512])
	copy(b[usa+4:], b[1022:1024])
	copy(b[510:512], b[usa:usa+2])
	copy(b[1022:1024], b[usa:usa+2])
}

// attribute finds an attribute of a type in a record.
func (v *ntfsVolume) attribute(b []byte, typ uint32) (off, n int) {
	v.t.Helper()
	for off = int(le.Uint16(b[20:])); le.Uint32(b[off:]) != 0xffffffff; off += n {
		n = int(le.Uint32(b[off+4:]))
		if le.Uint32(b[off:]) == typ {
			return off, n
		}
	}
	v.t.Fatalf("no attribute 0x%x", typ)
	return 0, 0
}

// replace puts another attribute, or several, in the place of one.
func (v *ntfsVolume) replace(b []byte, off, n int, with []byte) {
	end := int(le.Uint32(b[24:]))
	tail := append(bytes.Clone(with), b[off+n:end]...)
	if off+len(tail) > len(b)-2 {
		v.t.Fatalf("attribute of %d bytes does not fit", len(with))
	}
	copy(b[off:], tail)
	le.PutUint32(b[24:], uint32(off+len(tail)))
}

// runs encodes a run list of single clusters.
func runs(lcns []int64) []byte {
	var out []byte
	last := int64(0)
	for _, l := range lcns {
		var d [8]byte
		binary.LittleEndian.PutUint64(d[:], uint64(l-last))
		out = append(append(out, 0x41, 1), d[:4]...)
		last = l
	}
	return append(out, 0)
}

// dataAttr makes the header of an unnamed $DATA that starts at cluster vcn of the stream.
func dataAttr(old []byte, vcn int64, lcns []int64) []byte {
	b := bytes.Clone(old[:64])
	le.PutUint64(b[16:], uint64(vcn))
	le.PutUint64(b[24:], uint64(vcn+int64(len(lcns))-1))
	b[9] = 0
	le.PutUint16(b[32:], 64)
	if vcn > 0 {
		clear(b[40:64])
	}
	b = append(b, runs(lcns)...)
	b = append(b, make([]byte, -len(b)&7)...)
	le.PutUint32(b[4:], uint32(len(b)))
	return b
}

// scatter moves every cluster of $Bitmap to a place of its own among the free ones, as years of growing do, and
// returns the new places. The bitmap's own bits move with it.
func (v *ntfsVolume) scatter(um manifest.UsedMap, lcn, n int64) []int64 {
	bm := v.b[lcn*512 : (lcn+n)*512]
	flip := func(c int64) { bm[c>>3] ^= 1 << (c & 7) }
	var to []int64
	for c := int64(len(v.b)/512) - 100; int64(len(to)) < n; c -= 3 {
		if i := manifest.First(um.Extents, c*512); i < len(um.Extents) && um.Extents[i].Off <= c*512 {
			continue
		}
		to = append(to, c)
		flip(c)
		flip(lcn + int64(len(to)) - 1)
	}
	for i, c := range to {
		copy(v.b[c*512:], bm[i*512:(i+1)*512])
	}
	copy(bm, bytes.Repeat([]byte{0xff}, len(bm))) // who still reads the old place sees everything as used
	return to
}

// A $Bitmap in many pieces is read through its run list and, when one record is too small for that, through the
// attribute list and the records it names. libntfs-3g, in partclone and ntfscmp, is the oracle.
func TestNTFSFragmentedBitmap(t *testing.T) {
	for _, inList := range []bool{false, true} {
		t.Run(fmt.Sprintf("attribute-list-%v", inList), func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			size := int64(16 * MiB)
			if inList {
				size = 96 * MiB
			}
			img := mkNTFS(t, k, size, 6, 200<<10, "-c", "512")
			before := used(t, img)
			v := openNTFS(t, img)
			rec := v.record(6)
			off, n := v.attribute(rec, 0x80)
			old := bytes.Clone(rec[off : off+n])
			clusters := (int64(le.Uint64(old[48:])) + 511) / 512
			first := old[le.Uint16(old[32:]):]
			if first[0]&15 > 2 || le.Uint64(old[24:])+1 != uint64(clusters) {
				t.Fatalf("$Bitmap is not what the test knows: % x", old)
			}
			to := v.scatter(before, runStart(first), clusters)
			if inList {
				v.listBitmap(rec, off, n, old, to)
			} else {
				v.replace(rec, off, n, dataAttr(old, 0, to))
			}
			v.seal(rec)
			path := k.Path("scattered.img")
			if err := os.WriteFile(path, v.b, 0o600); err != nil {
				t.Fatal(err)
			}
			um := used(t, path)
			if um.Kind != "reader" {
				t.Fatalf("kind %s, why %s", um.Kind, um.Why)
			}
			if got, want := manifest.Sum(um.Extents), manifest.Sum(before.Extents); got != want {
				t.Errorf("%d bytes are used, %d before", got, want)
			}
			agrees(t, k, "ntfs", path, um, 1024)
			ntfsSame(t, k, path, restore(t, k, path, um.Extents))
		})
	}
}

func runStart(p []byte) int64 {
	n := int64(0)
	for i := range int(p[0] >> 4) {
		n |= int64(p[1+int(p[0]&15)+i]) << (8 * i)
	}
	return n
}

// listBitmap spreads the $DATA of record 6 over the records 16 and up and puts an attribute list in its place.
func (v *ntfsVolume) listBitmap(rec []byte, off, n int, old []byte, to []int64) {
	v.replace(rec, off, n, nil)
	entry := func(typ uint32, vcn, n int64, id uint16) []byte {
		b := make([]byte, 32)
		le.PutUint32(b, typ)
		le.PutUint16(b[4:], 32)
		b[7] = 26
		le.PutUint64(b[8:], uint64(vcn))
		le.PutUint64(b[16:], uint64(n)|uint64(le.Uint16(v.b[v.mft+n*1024+16:]))<<48)
		le.PutUint16(b[24:], id)
		return b
	}
	list := make([]byte, 24)
	var at int
	for o := int(le.Uint16(rec[20:])); le.Uint32(rec[o:]) != 0xffffffff; o += int(le.Uint32(rec[o+4:])) {
		if le.Uint32(rec[o:]) < 0x20 {
			at = o + int(le.Uint32(rec[o+4:]))
		}
		list = append(list, entry(le.Uint32(rec[o:]), 0, 6, le.Uint16(rec[o+14:]))...)
	}
	const perRecord = 60
	for i := 0; i < len(to); i += perRecord {
		ext := int64(16 + i/perRecord)
		x := v.record(ext)
		start := int(le.Uint16(x[20:]))
		a := dataAttr(old, int64(i), to[i:min(i+perRecord, len(to))])
		copy(x[start:], a)
		le.PutUint32(x[start+len(a):], 0xffffffff)
		le.PutUint32(x[24:], uint32(start+len(a)+8))
		le.PutUint16(x[22:], 1)
		le.PutUint16(x[18:], 0) // no links: it is no file of its own
		le.PutUint64(x[32:], 6|6<<48)
		list = append(list, entry(0x80, int64(i), ext, le.Uint16(old[14:]))...)
		v.seal(x)
	}
	le.PutUint32(list, 0x20)
	le.PutUint32(list[4:], uint32(len(list)))
	le.PutUint16(list[14:], 99)
	le.PutUint32(list[16:], uint32(len(list)-24))
	le.PutUint16(list[20:], 24)
	v.replace(rec, at, 0, list)
}

// A volume that Windows has not let go of comes back whole, with the state that names the right remedy.
func TestNTFSState(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkNTFS(t, k, 16*MiB, 0, 1)
	hiber := func(magic string) string {
		path, copyOf := k.Path("hiberfil"), patch(t, k, img, 0)
		if err := os.WriteFile(path, append([]byte(magic), make([]byte, 8192)...), 0o600); err != nil {
			t.Fatal(err)
		}
		k.Run("ntfs-3g", "", "ntfscp", "-q", copyOf, path, "hiberfil.sys")
		return copyOf
	}
	edit := func(n int64, typ uint32, at int, with byte) string {
		v := openNTFS(t, img)
		v.mft = int64(le.Uint64(v.b[48:])) * 4096
		rec := v.record(n)
		off, _ := v.attribute(rec, typ)
		rec[off+int(le.Uint16(rec[off+20:]))+at] |= with
		v.seal(rec)
		path := k.Path("edited.img")
		if err := os.WriteFile(path, v.b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		img   string
		state manifest.State
		why   string
	}{
		"as made":         {img, manifest.StateClean, ""},
		"hibernated":      {hiber("hibr"), manifest.StateHibernated, "powercfg /h off"},
		"fast startup":    {hiber("HIBR"), manifest.StateHibernated, "powercfg /h off"},
		"woken up":        {hiber("wake"), manifest.StateClean, ""},
		"never slept":     {hiber("\x00\x00\x00\x00"), manifest.StateClean, ""},
		"dirty flag":      {edit(3, 0x70, 10, 1), manifest.StateDirty, "chkdsk"},
		"chkdsk underway": {edit(3, 0x70, 11, 0x40), manifest.StateDirty, "chkdsk"},
		"open journal":    {openLog(t, k, img, 1, 0), manifest.StateDirty, "journal is open"},
		"closed journal":  {openLog(t, k, img, 1, 2), manifest.StateClean, ""},
		"journal of 8":    {openLog(t, k, img, 2, 2), manifest.StateDirty, "journal is open"},
	} {
		um := used(t, c.img)
		whole := um.Kind == "whole"
		if um.State != c.state || !strings.Contains(um.Why, c.why) || whole != (c.state != manifest.StateClean) {
			t.Errorf("%s: state %s, kind %s, why %q; want %s", name, um.State, um.Kind, um.Why, c.state)
		}
	}
}

// openLog gives $LogFile restart pages with a client that did not sign off, as a mounted Windows has. flags 2 means
// that the volume was left clean all the same.
func openLog(t testing.TB, k *fixture.Kit, img string, version, flags uint16) string {
	t.Helper()
	page := make([]byte, 4096)
	copy(page, "RSTR")
	le.PutUint16(page[4:], 30)
	le.PutUint16(page[6:], 9)
	le.PutUint32(page[16:], 4096)
	le.PutUint32(page[20:], 4096)
	le.PutUint16(page[24:], 48)
	le.PutUint16(page[28:], version)
	le.PutUint64(page[48:], 1234)
	le.PutUint16(page[48+14:], flags)
	le.PutUint16(page[48+10:], 0xffff)
	pages := append(bytes.Clone(page), page...)
	path, out := k.Path("pages"), patch(t, k, img, 0)
	if err := os.WriteFile(path, pages, 0o600); err != nil {
		t.Fatal(err)
	}
	k.Run("ntfs-3g", "", "ntfscp", "-f", "-q", "-i", out, path, "2")
	return out
}

// Torn and contradicting tables count as whole partition, never as a smaller map.
func TestNTFSWhole(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkNTFS(t, k, 16*MiB, 2, 5000, "-c", "512")
	v := openNTFS(t, img)
	bm := v.record(6)
	off, _ := v.attribute(bm, 0x80)
	run := int64(off) + int64(le.Uint16(bm[off+32:]))
	rec := v.mft + 6*1024
	bitmap := runStart(bm[run:]) * 512
	d := fstest.Load(t, img)
	for name, c := range map[string]struct {
		off  int64
		with []byte
	}{
		"torn record":           {rec + 1022, []byte{0xee, 0xee}},
		"not a record":          {rec, []byte("BAAD")},
		"free record":           {rec + 22, []byte{0}},
		"bitmap run outside":    {rec + run, []byte{0x41, 1, 0xff, 0xff, 0xff, 0x7f}},
		"sparse bitmap":         {rec + run, []byte{0x01, 0x40, 0}},
		"bitmap too short":      {rec + int64(off) + 48, []byte{8, 0}},
		"bitmap not valid":      {rec + int64(off) + 56, []byte{8, 0}},
		"compressed":            {rec + int64(off) + 12, []byte{1}},
		"bitmap without itself": {bitmap, make([]byte, 16)},
		"MFT elsewhere":         {48, []byte{99}},
		"record size":           {64, []byte{0x80}},
		"cluster size":          {13, []byte{3}},
	} {
		um := usedOf(t, d.With(c.off, c.with...))
		if um.FS != "ntfs" || um.Kind != "whole" || um.Why == "" || len(um.Extents) != 1 {
			t.Errorf("%s: kind %s, why %q; want the whole partition", name, um.Kind, um.Why)
		}
	}
}
