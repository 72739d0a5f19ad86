package fsmap

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/fsmap/xfs"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// mkXFS makes a filesystem with n files, from a protofile. --unsupported allows less than 300 MiB.
func mkXFS(t testing.TB, k *fixture.Kit, size int64, n int, options ...string) string {
	t.Helper()
	proto := "/none\n0 0\nd--755 0 0\n"
	for i := range n {
		path := k.Path("file")
		if err := os.WriteFile(path, fixture.Random(uint64(i), 1+i*7919%50000), 0o600); err != nil {
			t.Fatal(err)
		}
		proto += fmt.Sprintf("file%d ---644 0 0 %s\n", i, path)
	}
	file := k.Path("proto")
	if err := os.WriteFile(file, []byte(proto+"$\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	img := k.Sparse("xfs.img", size)
	k.Run("xfsprogs", "", "mkfs.xfs", append(append([]string{"--unsupported", "-q", "-L", "lab", "-p", file}, options...), img)...)
	return img
}

func TestXFS(t *testing.T) {
	for _, v := range []struct {
		name          string
		size          int64
		opts          []string
		block, groups int64
	}{
		{"v5", 64 * MiB, nil, 4096, 4},
		{"v4", 64 * MiB, []string{"-m", "crc=0,finobt=0"}, 4096, 4},
		{"v5-1k", 64 * MiB, []string{"-b", "size=1024"}, 1024, 4},
		{"v5-64k", 320 * MiB, []string{"-b", "size=65536"}, 65536, 4},
		{"v4-512", 64 * MiB, []string{"-m", "crc=0", "-b", "size=512"}, 512, 4},
		{"v5-4Kn", 64 * MiB, []string{"-s", "size=4096"}, 4096, 4},
		{"many-groups-odd-end", 300*MiB - 512, []string{"-d", "agcount=17"}, 4096, 17},
		{"all-btrees", 64 * MiB, []string{"-m", "rmapbt=1,reflink=1,inobtcount=1,bigtime=1"}, 4096, 4},
		{"stripe-log", 128 * MiB, []string{"-l", "su=64k,size=16m"}, 4096, 4},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			img := mkXFS(t, k, v.size, 30, v.opts...)
			um := used(t, img)
			if um.FS != "xfs" || um.Kind != "reader" || um.State != manifest.StateClean || um.Label != "lab" || len(um.UUID) != 36 {
				t.Errorf("Used = FS %s, kind %s, state %s, label %q, UUID %q, why %q", um.FS, um.Kind, um.State, um.Label, um.UUID, um.Why)
			}
			// partclone leaves out the blocks that the groups keep for their own btrees, 4 or 6 each.
			agrees(t, k, "xfs", img, um, 6*v.block*v.groups)
			if v.size <= 128*MiB {
				k.Run("xfsprogs", "", "xfs_repair", "-n", restore(t, k, img, um.Extents))
			}
		})
	}
}

// One wrong bit anywhere in the metadata makes version 5 fail its checksums, or touches nothing that the map depends
// on: the map never gets smaller.
func TestXFSFlippedBits(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkXFS(t, k, 32*MiB, 30, "-b", "size=1024", "-d", "agcount=2")
	d := fstest.Load(t, img)
	want, ok := fstest.Check(t, xfs.Used, d)
	if !ok {
		t.Fatalf("Used = %+v", want)
	}
	flipBits(t, d, xfs.Used, want)
}

func TestXFSStateAndDamage(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := mkXFS(t, k, 32*MiB, 3, "-m", "crc=0,finobt=0", "-b", "size=4096", "-d", "agcount=2") // v4: no checksum hides what is tested
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	d := fstest.Load(t, img)
	logStart := int64(be.Uint64(b[48:]))
	agLog := b[124]
	logAt := ((logStart>>agLog)*int64(be.Uint32(b[84:])) + logStart&(1<<agLog-1)) * 4096
	root := int64(be.Uint32(b[512+16:])) * 4096
	for name, c := range map[string]struct {
		off   int64
		with  []byte
		state manifest.State
		why   string
	}{
		"open journal":         {logAt + 512 + 9, []byte{0}, manifest.StateDirty, "journal"},
		"record after unmount": {logAt + 1024, append([]byte{0xfe, 0xed, 0xba, 0xbe, 0, 0, 0, 1}, make([]byte, 36)...), manifest.StateDirty, "journal"},
		"copy not finished":    {126, []byte{1}, manifest.StateDirty, "xfs_copy"},
		"journal elsewhere":    {48, make([]byte, 8), manifest.StateClean, "another device"},
		"realtime":             {23, []byte{9}, manifest.StateClean, "realtime"},
		"version":              {101, []byte{3}, manifest.StateClean, "version"},
		"block size":           {4, []byte{0, 0, 0, 7}, manifest.StateClean, "sizes"},
		"AGF of another":       {512 + 11, []byte{1}, manifest.StateClean, "another group"},
		"free count":           {512 + 55, []byte{b[512+55] ^ 1}, manifest.StateClean, "counts"},
		"btree magic":          {root, []byte("NOPE"), manifest.StateClean, "magic"},
		"btree level":          {root + 5, []byte{1}, manifest.StateClean, "level"},
		"record count":         {root + 6, []byte{0xff, 0xff}, manifest.StateClean, "records"},
		"no records":           {root + 6, []byte{0, 0}, manifest.StateClean, "counts"},
		"free beyond the end":  {root + 16 + 4, []byte{0x7f}, manifest.StateClean, "free blocks"},
	} {
		um := usedOf(t, d.With(c.off, c.with...))
		if um.FS != "xfs" || um.Kind != "whole" || um.State != c.state || !strings.Contains(um.Why, c.why) {
			t.Errorf("%s: state %s, kind %s, why %q; want whole, %s, %q", name, um.State, um.Kind, um.Why, c.state, c.why)
		}
	}
	if um, err := Used(bytes.NewReader(b), int64(len(b))); err != nil || um.Kind != "reader" {
		t.Errorf("as made: kind %s, %v", um.Kind, err)
	}
}
