package restore

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/part"
	"labswarm/images/library"
	"labswarm/internal/testreq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const MiB = fixture.MiB

type layout struct {
	name   string
	script string
	size   int64
	rootAt int64
	espAt  int64
	xfsAt  int64
}

var layouts = []layout{
	{"gpt", "label: gpt\nstart=2048,size=65536,type=U\nstart=67584,size=8192,type=S\nstart=75776,size=131072,type=L\n", 110 * MiB, 37 * MiB, MiB, 0},
	{"gpt-full", "label: gpt\nstart=2048,size=65536,type=U\nstart=67584,size=8192,type=S\nstart=75776,size=131072,type=L\n", 101*MiB + 33*512, 37 * MiB, MiB, 0},
	{"mbr-logical", "label: dos\nstart=2048,size=65536,type=ef,bootable\nstart=67584,size=200000,type=5\nstart=75776,size=131072,type=83\nstart=208896,size=8192,type=82\n", 140 * MiB, 37 * MiB, MiB, 0},
	{"gpt-xfs", "label: gpt\nstart=2048,size=65536,type=U\nstart=75776,size=131072,type=L\nstart=206848,size=655360,type=L\n", 425 * MiB, 37 * MiB, MiB, 101 * MiB},
}

func source(t *testing.T, k *fixture.Kit, l layout, tree string) string {
	t.Helper()
	root := k.Ext(64*MiB, tree, "-t", "ext4", "-b", "1024")
	k.ChurnExt(root, 40)
	esp := k.FAT(32*MiB, 16, tree)
	k.ChurnFAT(esp, 40)
	content := map[int64]string{l.rootAt: root, l.espAt: esp}
	if l.xfsAt > 0 {
		xfs := k.Sparse("xfs.img", 320*MiB)
		k.Run("xfsprogs", "", "mkfs.xfs", "-q", xfs)
		content[l.xfsAt] = xfs
	}
	return k.Disk(l.size, l.script, content)
}

// imported makes an image of a disk, which is closed when the test ends.
func imported(t *testing.T, disk string) (*library.Library, *library.Version) {
	t.Helper()
	lib, err := library.Open(t.TempDir(), ed25519.NewKeyFromSeed(fixture.Random(1, 32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := lib.Import(t.Context(), library.ImportOptions{Name: "lab", File: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return lib, v
}

// The whole way: a disk nobody prepared becomes an image, is written over a used disk of another size, and every
// filesystem is then in order and holds the same files.
func TestRoundTrip(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			k := fixture.New(t, testreq.Tool)
			tree := k.Tree(4, 40, 200<<10)
			disk := source(t, k, l, tree)
			_, v := imported(t, disk)
			sizes := []int64{l.size, l.size + 57*MiB + 512}
			if l.xfsAt > 0 {
				sizes = sizes[1:] // one round of the big one is enough
			}
			for _, size := range sizes {
				f, err := os.OpenFile(k.Garbage(size), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := ToFile(t.Context(), v, f); err != nil {
					t.Fatalf("ToFile = %v", err)
				}
				if bad, err := Check(t.Context(), v.Manifest(), f); err != nil || bad != nil {
					t.Errorf("Check = %v, %v; want a full match", bad, err)
				}
				inspect(t, k, l, disk, f.Name())
				spoil(t, v, f)
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			tooSmall(t, k, v)
		})
	}
}

// lastSize is place and size of the last partition that sfdisk -d lists.
var lastSize = regexp.MustCompile(`(start= *)([0-9]+)(, size= *)([0-9]+)([^\n]*\n)$`)

// inspect looks at a restored disk with other people's tools.
func inspect(t *testing.T, k *fixture.Kit, l layout, disk, out string) {
	t.Helper()
	if strings.HasPrefix(l.name, "gpt") {
		if text := k.Run("gdisk", "", "sgdisk", "-v", out); !strings.Contains(text, "No problems found") {
			t.Errorf("sgdisk -v:\n%s", text)
		}
	}
	dump := func(path string) string {
		text := k.Run("fdisk", "", "sfdisk", "-d", path)
		_, parts, _ := strings.Cut(text, "\n\n")
		return strings.ReplaceAll(parts, path, "disk")
	}
	before, after := dump(disk), dump(out)
	if st, err := os.Stat(out); err != nil {
		t.Fatal(err)
	} else if strings.HasPrefix(l.name, "gpt") && st.Size() > l.size {
		var start, size int64 // of the last partition, which has grown; in sectors
		m := lastSize.FindStringSubmatch(after)
		if m == nil {
			t.Fatalf("sfdisk -d: %s", after)
		}
		if _, err := fmt.Sscan(m[2], &start); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(m[4], &size); err != nil {
			t.Fatal(err)
		}
		before, after = lastSize.ReplaceAllString(before, "$1$2 grows$5"), lastSize.ReplaceAllString(after, "$1$2 grows$5")
		if end := (start + size) * 512; end%MiB != 0 || end < st.Size()-2*MiB || end > st.Size()-33*512 {
			t.Errorf("the last partition ends at %d on a disk of %d bytes", end, st.Size())
		}
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("sfdisk -d (-source +restored):\n%s", d)
	}
	root := k.Slice(out, l.rootAt, 64*MiB)
	k.Run("e2fsprogs", "", "e2fsck", "-fn", root)
	if d := cmp.Diff(k.ExtFiles(k.Slice(disk, l.rootAt, 64*MiB)), k.ExtFiles(root)); d != "" {
		t.Errorf("ext4 files differ: %s", d)
	}
	esp := k.Slice(out, l.espAt, 32*MiB)
	k.Run("dosfstools", "", "fsck.vfat", "-n", esp)
	if d := cmp.Diff(k.FATFiles(k.Slice(disk, l.espAt, 32*MiB)), k.FATFiles(esp)); d != "" {
		t.Errorf("FAT files differ: %s", d)
	}
	if l.xfsAt > 0 {
		k.Run("xfsprogs", "", "xfs_repair", "-n", "-f", k.Slice(out, l.xfsAt, 320*MiB))
	}
}

// spoil is the negative control of Check: one used byte changed is found, one unused byte is not.
func spoil(t *testing.T, v *library.Version, f *os.File) {
	t.Helper()
	used := v.Manifest().Used()
	last := used[len(used)-1]
	flip := func(off int64) {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{^b[0]}, off); err != nil {
			t.Fatal(err)
		}
	}
	gap := used[len(used)-2].End()
	flip(gap)
	if bad, err := Check(t.Context(), v.Manifest(), f); err != nil || bad != nil {
		t.Errorf("Check after changing unused byte %d = %v, %v; want a match", gap, bad, err)
	}
	flip(last.End() - 1)
	want := []int64{(last.End() - 1) / v.Manifest().Cell}
	bad, err := Check(t.Context(), v.Manifest(), f)
	if d := cmp.Diff(want, bad); err != nil || d != "" {
		t.Errorf("Check after changing a used byte: %v, (-want +got):\n%s", err, d)
	}
}

func tooSmall(t *testing.T, k *fixture.Kit, v *library.Version) {
	t.Helper()
	need := v.Manifest().Disk.MinSize
	f, err := os.OpenFile(k.Garbage(need-512), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var small *part.SizeError
	if err := ToFile(t.Context(), v, f); !errors.As(err, &small) || small.Need != need || small.Have != need-512 {
		t.Errorf("ToFile on a disk of %s = %v; want SizeError", fmt.Sprint(need-512), err)
	}
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, 0); err != nil || b[0] != 0xA5 || b[510] != 0xA5 {
		t.Error("a refused disk was written to")
	}
}
