package fsmap

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/btrfs"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

func mkBtrfs(k *fixture.Kit, size int64, tree string, options ...string) string {
	img := k.Sparse("btrfs.img", size)
	if tree != "" {
		options = append(options, "--rootdir", tree)
	}
	k.Run("btrfs-progs", "", "mkfs.btrfs", append(append([]string{"-q", "-L", "lab"}, options...), img)...)
	return img
}

// btrfsFiles gets the files out without mounting.
func btrfsFiles(t testing.TB, k *fixture.Kit, img string) map[string]string {
	t.Helper()
	dir := k.Path("files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	k.Run("btrfs-progs", "", "btrfs", "restore", img, dir)
	return k.Files(dir)
}

// btrfsExtents is the oracle: what the extent tree refers to, at every place that the chunk tree gives it, according to
// btrfs-progs. partclone.btrfs is none: it takes the logical addresses of data for places on the disk, knows one of
// two copies, and fills up with what stands between.
func btrfsExtents(t testing.TB, k *fixture.Kit, img string) []manifest.Extent {
	t.Helper()
	super := k.Run("btrfs-progs", "", "btrfs", "inspect-internal", "dump-super", img)
	node := atoi(t, regexp.MustCompile(`(?m)^nodesize\s+(\d+)`).FindStringSubmatch(super)[1])
	type chunk struct{ logical, length, at int64 }
	var chunks []chunk
	text := k.Run("btrfs-progs", "", "btrfs", "inspect-internal", "dump-tree", "-t", "chunk", img)
	for _, item := range strings.Split(text, "CHUNK_ITEM ")[1:] {
		logical := atoi(t, item[:strings.IndexByte(item, ')')])
		length := atoi(t, regexp.MustCompile(`length (\d+)`).FindStringSubmatch(item)[1])
		for _, m := range regexp.MustCompile(`stripe \d+ devid 1 offset (\d+)`).FindAllStringSubmatch(item, -1) {
			chunks = append(chunks, chunk{logical, length, atoi(t, m[1])})
		}
	}
	var out []manifest.Extent
	text = k.Run("btrfs-progs", "", "btrfs", "inspect-internal", "dump-tree", "-t", "extent", img)
	for _, m := range regexp.MustCompile(`key \((\d+) (EXTENT|METADATA)_ITEM (\d+)\)`).FindAllStringSubmatch(text, -1) {
		logical, n := atoi(t, m[1]), node
		if m[2] == "EXTENT" {
			n = atoi(t, m[3])
		}
		for _, c := range chunks {
			if logical >= c.logical && logical < c.logical+c.length {
				out = append(out, manifest.Extent{Off: c.at + logical - c.logical, Len: n})
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("btrfs dump-tree lists no extents:\n%s", text)
	}
	return manifest.Merge(out)
}

func TestBtrfs(t *testing.T) {
	for _, v := range []struct {
		name string
		size int64
		opts []string
		more int64 // bytes that we take beyond the extent tree, the first MiB and the copy of the superblock
	}{
		{"dup", 128 * MiB, nil, 0},
		{"single", 128*MiB + 8192, []string{"-m", "single"}, 0},
		{"sha256", 128 * MiB, []string{"--csum", "sha256"}, 0},
		{"mixed", 64 * MiB, []string{"-M"}, 0},
		{"nodes-4k", 128 * MiB, []string{"-n", "4096"}, 0},
		{"nodes-64k", 128 * MiB, []string{"-n", "65536"}, 0},
		{"no-free-space-tree", 128 * MiB, []string{"-R", "^free-space-tree"}, 128 * MiB}, // whole chunks
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			img := mkBtrfs(k, v.size, k.Tree(11, 60, 100<<10), v.opts...)
			um := used(t, img)
			if um.FS != "btrfs" || um.Kind != "reader" || um.State != manifest.StateClean || um.Label != "lab" || len(um.UUID) != 36 {
				t.Errorf("Used = FS %s, kind %s, state %s, label %q, UUID %q, why %q", um.FS, um.Kind, um.State, um.Label, um.UUID, um.Why)
			}
			if n := manifest.Sum(um.Extents); n == v.size {
				t.Errorf("all %d bytes count as used", n)
			}
			want := btrfsExtents(t, k, img)
			if m := missing(want, um.Extents); m != nil {
				t.Errorf("%d bytes of the extent tree are missing, the first %+v", manifest.Sum(m), m[0])
			}
			if m := manifest.Sum(missing(um.Extents, want)); m > MiB+4096+v.more {
				t.Errorf("%d bytes more than the extent tree and what stands outside of it", m)
			}
			out := restore(t, k, img, um.Extents)
			k.Run("btrfs-progs", "", "btrfs", "check", "--check-data-csum", out)
			if d := cmp.Diff(btrfsFiles(t, k, img), btrfsFiles(t, k, out)); d != "" {
				t.Errorf("files differ after restoring: %s", d)
			}
		})
	}
}

func TestBtrfsFlippedBits(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkBtrfs(k, 64*MiB, "", "-m", "single", "-n", "4096", "-M")
	d := fstest.Load(t, img)
	want, ok := fstest.Check(t, btrfs.Used, d)
	if !ok {
		t.Fatalf("Used = %+v", want)
	}
	flipBits(t, d, btrfs.Used, want)
}

// With metadata kept twice, one bad copy of a tree block is no reason to give up.
func TestBtrfsSecondCopy(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkBtrfs(k, 128*MiB, "", "-m", "dup")
	want := used(t, img)
	text := k.Run("btrfs-progs", "", "btrfs", "inspect-internal", "dump-super", img)
	var chunkRoot int64
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "chunk_root" {
			chunkRoot = atoi(t, f[1])
		}
	}
	var at int64
	for line := range strings.Lines(k.Run("btrfs-progs", "", "btrfs-map-logical", "-l", fmt.Sprint(chunkRoot), img)) {
		if f := strings.Fields(line); len(f) > 6 && f[0] == "mirror" && f[1] == "1" {
			at = atoi(t, f[5])
		}
	}
	if at == 0 {
		t.Fatalf("no place of the chunk root %d", chunkRoot)
	}
	um := used(t, patch(t, k, img, at+500, 0xff, 0xee, 0xdd))
	if d := cmp.Diff(want.Extents, um.Extents); d != "" || um.Kind != "reader" {
		t.Errorf("kind %s, why %s: %s", um.Kind, um.Why, d)
	}
}

// resum edits a superblock and puts its checksum right.
func resum(t testing.TB, d *fstest.Disk, off int64, with ...byte) *fstest.Disk {
	t.Helper()
	const at = 64 << 10
	d = d.With(at+off, with...)
	sb := make([]byte, 4096)
	if _, err := d.ReadAt(sb, at); err != nil {
		t.Fatal(err)
	}
	return d.With(at, le.AppendUint32(nil, crc32.Checksum(sb[32:], crc32.MakeTable(crc32.Castagnoli)))...)
}

func TestBtrfsStateAndDamage(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkBtrfs(k, 64*MiB, "", "-m", "single", "-M")
	d := fstest.Load(t, img)
	for name, c := range map[string]struct {
		disk  *fstest.Disk
		state manifest.State
		why   string
	}{
		"log tree":       {resum(t, d, 96, 0, 0, 0x50), manifest.StateDirty, "log tree"},
		"UUID change":    {resum(t, d, 60, 8), manifest.StateDirty, "UUID"},
		"zoned":          {resum(t, d, 189, 0x13), manifest.StateClean, "feature"},
		"xxhash":         {resum(t, d, 196, 1), manifest.StateClean, "xxhash"},
		"a bit":          {d.With(64<<10+700, 1), manifest.StateClean, "checksum"},
		"node size":      {resum(t, d, 148, 1), manifest.StateClean, "sizes"},
		"chunk array":    {resum(t, d, 160, 40), manifest.StateClean, "cut off"},
		"chunk root":     {resum(t, d, 88, 0, 0, 0, 0, 0x7f), manifest.StateClean, "no chunk"},
		"chunk level":    {resum(t, d, 199, 3), manifest.StateClean, "level"},
		"old generation": {resum(t, d, 72, 99), manifest.StateClean, "generation"},
	} {
		um := usedOf(t, c.disk)
		if um.FS != "btrfs" || um.Kind != "whole" || um.State != c.state || !strings.Contains(um.Why, c.why) {
			t.Errorf("%s: state %s, kind %s, why %q; want whole, %s, %q", name, um.State, um.Kind, um.Why, c.state, c.why)
		}
	}
	// Two devices: refused.
	var span *SpanError
	if _, err := Used(resum(t, d, 136, 2), d.Size); !errors.As(err, &span) || span.Devices != 2 {
		t.Errorf("two devices: Used = %v; want SpanError", err)
	}
}
