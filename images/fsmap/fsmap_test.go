package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

const MiB = fixture.MiB

func used(t testing.TB, path string) manifest.UsedMap {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	um, err := Used(f, size)
	if err != nil {
		t.Fatalf("Used(%s) = %v", path, err)
	}
	return um
}

// restore writes only the given extents of img over garbage: what a deployed disk would hold at worst.
func restore(t testing.TB, k *fixture.Kit, img string, list []manifest.Extent) string {
	t.Helper()
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Repeat([]byte{0xA5}, len(data))
	for _, e := range list {
		copy(out[e.Off:e.End()], data[e.Off:e.End()])
	}
	path := k.Path("restored.img")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var extVariants = []struct {
	name string
	size int64
	opts []string
	fs   string
}{
	{"ext4-4k", 24 * MiB, []string{"-t", "ext4", "-b", "4096"}, "ext4"},
	{"ext4-1k", 24 * MiB, []string{"-t", "ext4", "-b", "1024"}, "ext4"},
	{"ext4-2k-odd-end", 24*MiB - 6*1024, []string{"-t", "ext4", "-b", "2048"}, "ext4"},
	{"ext4-no64bit", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "^64bit"}, "ext4"},
	{"ext4-nocsum", 24 * MiB, []string{"-t", "ext4", "-O", "^metadata_csum,^uninit_bg"}, "ext4"},
	{"ext4-noflex", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "^flex_bg"}, "ext4"},
	{"ext4-bigalloc", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"}, "ext4"},
	{"ext4-sparse2", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "sparse_super2"}, "ext4"},
	{"ext4-many-groups", 90 * MiB, []string{"-t", "ext4", "-b", "1024"}, "ext4"},
	{"ext4-small-groups", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-g", "1024"}, "ext4"},
	{"ext4-meta-bg", 90 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"}, "ext4"},
	{"ext4-meta-bg-small", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-g", "256", "-O", "meta_bg,^resize_inode,^flex_bg,^64bit", "-N", "512"}, "ext4"},
	{"ext4-meta-bg-nocsum", 24 * MiB, []string{"-t", "ext4", "-b", "1024", "-g", "256", "-O", "meta_bg,^resize_inode,^metadata_csum,uninit_bg", "-N", "512"}, "ext4"},
	{"ext4-meta-bg-bigalloc", 48 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,bigalloc", "-C", "8192"}, "ext4"},
	{"ext4-uninit-bg", 90 * MiB, []string{"-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg"}, "ext4"},
	{"ext4-64k", 96 * MiB, []string{"-t", "ext4", "-b", "65536"}, "ext4"},
	{"ext4-csum-seed", 24 * MiB, []string{"-t", "ext4", "-O", "metadata_csum_seed"}, "ext4"},
	{"ext3", 24 * MiB, []string{"-t", "ext3"}, "ext3"},
	{"ext2-1k", 32 * MiB, []string{"-t", "ext2", "-b", "1024"}, "ext2"},
	{"ext2-rev0", 32 * MiB, []string{"-t", "ext2", "-r", "0", "-b", "1024"}, "ext2"},
}

// The used map of every variant must be what dumpe2fs says, and enough to bring the filesystem back.
func TestExt(t *testing.T) {
	for _, v := range extVariants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			tree := k.Tree(7, 60, 100<<10)
			if v.name == "ext2-rev0" {
				tree = "" // mke2fs -d needs revision 1
			}
			img := k.Ext(v.size, tree, append(v.opts, "-L", "lab")...)
			if tree != "" {
				k.ChurnExt(img, 60)
			}
			um := used(t, img)
			if um.FS != v.fs || um.Kind != "reader" || um.State != manifest.StateClean || um.Label != "lab" || len(um.UUID) != 36 {
				t.Errorf("Used = FS %q, kind %q, state %s, label %q, uuid %q, why %q", um.FS, um.Kind, um.State, um.Label, um.UUID, um.Why)
			}
			if d := cmp.Diff(dumpe2fsUsed(t, k, img), um.Extents); d != "" {
				t.Errorf("differs from dumpe2fs (-dumpe2fs +ours):\n%s", d)
			}
			if !strings.Contains(v.name, "bigalloc") { // partclone does not read those
				agrees(t, k, "extfs", img, um, 0)
			}
			out := restore(t, k, img, um.Extents)
			k.Run("e2fsprogs", "", "e2fsck", "-fn", out)
			if d := cmp.Diff(k.ExtFiles(img), k.ExtFiles(out)); d != "" {
				t.Errorf("files differ after restoring: %s", d)
			}
		})
	}
}

var (
	rangeRE   = regexp.MustCompile(`(\d+)(?:-(\d+))?`)
	blockRE   = regexp.MustCompile(`Block size:\s+(\d+)`)
	clusterRE = regexp.MustCompile(`Cluster size:\s+(\d+)`)
	countRE   = regexp.MustCompile(`Block count:\s+(\d+)`)
)

// dumpe2fsUsed turns the free block lists of dumpe2fs into a used map.
func dumpe2fsUsed(t testing.TB, k *fixture.Kit, img string) []manifest.Extent {
	t.Helper()
	text := k.Run("e2fsprogs", "", "dumpe2fs", img)
	bs := atoi(t, blockRE.FindStringSubmatch(text)[1])
	count := atoi(t, countRE.FindStringSubmatch(text)[1])
	perCluster := int64(1)
	if m := clusterRE.FindStringSubmatch(text); m != nil {
		perCluster = atoi(t, m[1]) / bs
	}
	free := make([]bool, count)
	groups := 0
	for line := range strings.Lines(text) {
		list, ok := strings.CutPrefix(line, "  Free blocks: ")
		if !ok {
			continue
		}
		groups++
		for _, m := range rangeRE.FindAllStringSubmatch(list, -1) {
			a := atoi(t, m[1])
			b := a
			if m[2] != "" {
				b = atoi(t, m[2])
			}
			b += perCluster - 1 // under bigalloc dumpe2fs names the first block of each free cluster
			for i := a; i <= b; i++ {
				free[i] = true
			}
		}
	}
	if groups == 0 {
		t.Fatalf("dumpe2fs lists no groups:\n%s", text)
	}
	var out []manifest.Extent
	for i, f := range free {
		if !f {
			out = append(out, manifest.Extent{Off: int64(i) * bs, Len: bs})
		}
	}
	return manifest.Merge(out)
}

func atoi(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The negative control: with one used block missing the oracle must complain.
func TestExtOracleHasTeeth(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := k.Ext(24*MiB, k.Tree(7, 60, 100<<10), "-t", "ext4")
	um := used(t, img)
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	files := k.ExtFiles(img)
	at := int64(bytes.Index(data, []byte(files["DIR1/FILE1.BIN"][:64])))
	notices := func(hole manifest.Extent) bool {
		var cut []manifest.Extent
		for _, e := range um.Extents {
			cut = append(cut, manifest.Extent{Off: e.Off, Len: min(e.End(), max(hole.Off, e.Off)) - e.Off})
			start := max(hole.End(), e.Off)
			cut = append(cut, manifest.Extent{Off: start, Len: e.End() - start})
		}
		out := restore(t, k, img, manifest.Merge(cut))
		_, err := k.Try("e2fsprogs", "", "e2fsck", "-fn", out)
		return err != nil || !cmp.Equal(files, k.ExtFiles(out))
	}
	if notices(manifest.Extent{}) {
		t.Error("the oracle complains of a complete map")
	}
	if !notices(manifest.Extent{Off: at, Len: 4096}) {
		t.Error("one block of a file is missing and nobody noticed")
	}
	if !notices(manifest.Extent{Off: 4096, Len: 512}) {
		t.Error("the group descriptors are missing and nobody noticed")
	}
}

var clustersRE = regexp.MustCompile(`(\d+)/(\d+) clusters`)

func TestFAT(t *testing.T) {
	for _, v := range []struct {
		bits int
		size int64
		opts []string
	}{
		{12, 2 * MiB, nil}, {12, 8 * MiB, []string{"-s", "8"}}, {16, 24 * MiB, nil}, {16, 20 * MiB, []string{"-f", "1"}},
		{32, 36 * MiB, []string{"-s", "1"}}, {16, 20 * MiB, []string{"-S", "4096", "-s", "1"}},
	} {
		t.Run(fmt.Sprintf("fat%d-%dM%s", v.bits, v.size/MiB, strings.Join(v.opts, "")), func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			n, maxSize := 40, 100<<10
			if v.bits == 12 {
				maxSize = 30 << 10
			}
			img := k.FAT(v.size, v.bits, k.Tree(9, n, maxSize), append(v.opts, "-n", "LAB", "-i", "A1B2C3D4")...)
			k.ChurnFAT(img, n)
			um := used(t, img)
			if um.FS != fmt.Sprintf("fat%d", v.bits) || um.Kind != "reader" || um.State != manifest.StateClean || um.Label != "LAB" || um.UUID != "A1B2-C3D4" {
				t.Errorf("Used = FS %q, kind %q, state %s, label %q, uuid %q, why %q", um.FS, um.Kind, um.State, um.Label, um.UUID, um.Why)
			}
			if v.bits != 12 { // partclone takes these for FAT16 and contradicts fsck.vfat
				agrees(t, k, "fat", img, um, 0)
			}
			out := restore(t, k, img, um.Extents)
			text := k.Run("dosfstools", "", "fsck.vfat", "-n", "-v", out)
			m := clustersRE.FindStringSubmatch(text)
			data := dataStart(t, text)
			per := clusterSize(t, text)
			if got := (manifest.Sum(um.Extents) - data) / per; got != atoi(t, m[1]) {
				t.Errorf("used clusters = %d; fsck.vfat says %s", got, m[1])
			}
			if d := cmp.Diff(k.FATFiles(img), k.FATFiles(out)); d != "" {
				t.Errorf("files differ after restoring: %s", d)
			}
		})
	}
}

func dataStart(t testing.TB, text string) int64 {
	t.Helper()
	m := regexp.MustCompile(`Data area starts at byte (\d+)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("fsck.vfat -v: no data area in\n%s", text)
	}
	return atoi(t, m[1])
}

func clusterSize(t testing.TB, text string) int64 {
	t.Helper()
	m := regexp.MustCompile(`(\d+) bytes per cluster`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("fsck.vfat -v: no cluster size in\n%s", text)
	}
	return atoi(t, m[1])
}

func TestFATOracleHasTeeth(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := k.FAT(36*MiB, 32, k.Tree(9, 40, 100<<10), "-s", "1")
	um := used(t, img)
	cut := append([]manifest.Extent{}, um.Extents...)
	cut[len(cut)-1].Len /= 2
	out := restore(t, k, img, cut)
	if files, err := k.TryFATFiles(out); err == nil && cmp.Equal(k.FATFiles(img), files) {
		t.Error("half of the last extent is missing and the files are equal")
	}
}

// patch returns a copy of img with bytes changed.
func patch(t testing.TB, k *fixture.Kit, img string, off int64, b ...byte) string {
	t.Helper()
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[off:], b)
	path := k.Path("patched.img")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnclean(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	ext4 := k.Ext(16*MiB, "", "-t", "ext4", "-O", "^metadata_csum")
	fat32, fat16 := k.FAT(36*MiB, 32, "", "-s", "1"), k.FAT(32*MiB, 16, "")
	read := func(img string, off, n int64) []byte {
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		return b[off : off+n]
	}
	or := func(img string, off int64, bit byte) string { return patch(t, k, img, off, read(img, off, 1)[0]|bit) }
	for name, img := range map[string]string{
		"ext mounted":      patch(t, k, ext4, 1024+58, 0),
		"ext errors":       or(ext4, 1024+58, 2),
		"ext journal":      or(ext4, 1024+96, 4),
		"ext orphans":      patch(t, k, ext4, 1024+232, 12),
		"ext orphan file":  or(ext4, 1024+102, 1),
		"fat32 boot state": patch(t, k, fat32, 65, 1),
		"fat32 FAT[1]":     patch(t, k, fat32, 32*512+7, 0x07),
		"fat16 boot state": patch(t, k, fat16, 37, 1),
		"swap hibernated":  patch(t, k, k.Swap(MiB), 4086, []byte("S1SUSPEND\x00")...),
	} {
		if um := used(t, img); um.State != stateOf(name) || um.Why == "" || um.Kind != "whole" {
			t.Errorf("%s: state %s, why %q; want the whole partition, not clean, with a reason", name, um.State, um.Why)
		}
	}
}

// A reader that is not sure must give the whole partition, with the reason.
func TestWhole(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	ext4 := k.Ext(16*MiB, "", "-t", "ext4", "-O", "^metadata_csum") // a checksum would hide what is tested
	fat16 := k.FAT(32*MiB, 16, "")
	for name, img := range map[string]string{
		"unknown feature":  patch(t, k, ext4, 1024+99, 0x40),
		"journal device":   k.Ext(16*MiB, "", "-O", "journal_dev"),
		"free count":       patch(t, k, ext4, 2048+12, 0xff, 0x0f),
		"unknown ro":       patch(t, k, ext4, 1024+103, 0x40),
		"superblock bit":   patch(t, k, k.Ext(16*MiB, "", "-t", "ext4"), 1024+900, 1),
		"bad block size":   patch(t, k, ext4, 1024+24, 99),
		"zero group size":  patch(t, k, ext4, 1024+32, 0, 0, 0, 0),
		"metadata outside": patch(t, k, ext4, 2048, 0xff, 0xff, 0xff, 0x7f),
		"FATs differ":      patch(t, k, fat16, 4*512+100, 7),
		"FAT too short":    patch(t, k, fat16, 22, 1, 0),
	} {
		um := used(t, img)
		st, err := os.Stat(img)
		if err != nil {
			t.Fatal(err)
		}
		want := []manifest.Extent{{Off: 0, Len: st.Size()}}
		if um.Kind != "whole" || um.Why == "" || !cmp.Equal(um.Extents, want) || um.State != manifest.StateClean {
			t.Errorf("%s: kind %q, state %s, why %q, extents %v; want the whole partition with a reason", name, um.Kind, um.State, um.Why, um.Extents)
		}
	}
}

func TestDetect(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	for want, img := range map[string]string{
		"luks":    patch(t, k, k.Sparse("luks", MiB), 0, []byte("LUKS\xba\xbe\x00\x02")...),
		"exfat":   patch(t, k, k.Sparse("exfat", MiB), 3, []byte("EXFAT   ")...), // without anything behind it
		"lvm":     patch(t, k, k.Sparse("lvm", MiB), 512, append(append([]byte("LABELONE"), make([]byte, 16)...), "LVM2 001"...)...),
		"unknown": k.Sparse("none", 3*512),
	} {
		if um := used(t, img); um.FS != want || um.Kind != "whole" || um.State != manifest.StateClean {
			t.Errorf("%s: FS %q, kind %q, state %s", want, um.FS, um.Kind, um.State)
		}
	}
}

func TestTooBig(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	for _, img := range []string{k.Ext(16*MiB, "", "-t", "ext4"), k.FAT(32*MiB, 16, "")} {
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Used(bytes.NewReader(b[:8*MiB]), 8*MiB)
		var tb *TooBigError
		if !errors.As(err, &tb) || tb.Size <= 8*MiB || tb.Have != 8*MiB {
			t.Errorf("Used of a cut filesystem = %v; want TooBigError", err)
		}
	}
}

func stateOf(name string) manifest.State {
	if strings.Contains(name, "hibernated") {
		return manifest.StateHibernated
	}
	return manifest.StateDirty
}
