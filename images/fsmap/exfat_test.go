package fsmap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/fstest"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// exfatPlaces are byte offsets of a volume.
type exfatPlaces struct{ fat, heap, cluster, count, bitmap int64 }

func placesOf(b []byte) exfatPlaces {
	sector := int64(1) << b[108]
	p := exfatPlaces{
		fat: int64(le.Uint32(b[80:])) * sector, heap: int64(le.Uint32(b[88:])) * sector,
		cluster: sector << b[109], count: int64(le.Uint32(b[92:])),
	}
	p.bitmap = p.heap // mkfs.exfat puts it into the first cluster
	return p
}

// exfatFilled makes a volume and marks clusters as used the way files would, in runs of random length, up to a share
// of all. Nobody here can write files into exFAT without mounting it; the integration tests do that.
func exfatFilled(t testing.TB, k *fixture.Kit, size int64, share float64, options ...string) string {
	t.Helper()
	img := k.Sparse("exfat.img", size)
	k.Run("exfatprogs", "", "mkfs.exfat", append(append([]string{"-L", "Lab"}, options...), img)...)
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	p := placesOf(b)
	r := rand.New(rand.NewPCG(5, 5))
	for marked := 0.0; marked < share*float64(p.count); {
		start, n := r.Int64N(p.count), 1+r.Int64N(40)
		for c := start; c < min(start+n, p.count); c++ {
			if bit := byte(1) << (c & 7); b[p.bitmap+c>>3]&bit == 0 {
				b[p.bitmap+c>>3] |= bit
				marked++
			}
		}
	}
	if err := os.WriteFile(img, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestExFAT(t *testing.T) {
	for _, v := range []struct {
		name    string
		size    int64
		share   float64
		cluster int64
	}{
		{"4k", 64 * MiB, 0.3, 4096},
		{"512-odd-end", 64*MiB - 512, 0.3, 512},
		{"32k-nearly-full", 64 * MiB, 0.97, 32 << 10},
		{"1M", 96 * MiB, 0.5, MiB},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			k := fixture.New(t, testreq.Tool)
			img := exfatFilled(t, k, v.size, v.share, "-c", fmt.Sprint(v.cluster))
			um := used(t, img)
			if um.FS != "exfat" || um.Kind != "reader" || um.State != manifest.StateClean || um.Label != "Lab" || len(um.UUID) != 9 {
				t.Errorf("Used = FS %s, kind %s, state %s, label %q, UUID %q, why %q", um.FS, um.Kind, um.State, um.Label, um.UUID, um.Why)
			}
			agrees(t, k, "exfat", img, um, v.cluster) // its log leaves out the last cluster, also when it is used
			k.Run("exfatprogs", "", "fsck.exfat", "-n", restore(t, k, img, um.Extents))
		})
	}
}

// A bitmap in several pieces is read along its chain in the FAT.
func TestExFATFragmentedBitmap(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := exfatFilled(t, k, 64*MiB, 0.2, "-c", "512") // 126 KiB of FAT, 30 clusters of bitmap
	before := used(t, img)
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	p := placesOf(b)
	n := ((p.count+7)/8 + p.cluster - 1) / p.cluster
	old := append([]byte{}, b[p.bitmap:p.bitmap+n*p.cluster]...)
	flip := func(c int64) { old[c>>3] ^= 1 << (c & 7) } // c counts from the first cluster of the heap
	to := []int64{}
	for c := p.count - 5; int64(len(to)) < n; c -= 2 {
		if old[c>>3]>>(c&7)&1 == 0 {
			to = append(to, c)
			flip(c)
		}
	}
	for i := range n - 1 { // the entry in the root directory goes on naming the first cluster
		flip(i + 1)
	}
	flip(to[0])
	to[0] = 0
	for i, c := range to {
		next := uint32(0xffffffff)
		if i+1 < len(to) {
			next = uint32(to[i+1] + 2)
		}
		le.PutUint32(b[p.fat+(c+2)*4:], next)
		copy(b[p.heap+c*p.cluster:], old[int64(i)*p.cluster:int64(i+1)*p.cluster])
	}
	path := k.Path("scattered.img")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	um := used(t, path)
	if um.Kind != "reader" || manifest.Sum(um.Extents) != manifest.Sum(before.Extents) {
		t.Errorf("kind %s, %d bytes, %d before; why %q", um.Kind, manifest.Sum(um.Extents), manifest.Sum(before.Extents), um.Why)
	}
	for _, c := range to {
		if m := missing([]manifest.Extent{{Off: p.heap + c*p.cluster, Len: p.cluster}}, um.Extents); m != nil {
			t.Errorf("a piece of the bitmap at %v is missing", m)
		}
	}
}

func TestExFATStateAndDamage(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	img := exfatFilled(t, k, 64*MiB, 0.1, "-c", "4096")
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	p := placesOf(b)
	d := fstest.Load(t, img)
	root := p.heap + (int64(le.Uint32(b[96:]))-2)*p.cluster
	if um := usedOf(t, d.With(106, 2)); um.State != manifest.StateDirty || um.Kind != "whole" || um.Label != "Lab" {
		t.Errorf("VolumeDirty: state %s, kind %s, label %q", um.State, um.Kind, um.Label)
	}
	for name, c := range map[string]struct {
		off  int64
		with []byte
	}{
		"a bit of the boot sector":     {120, []byte{1}},
		"two FATs":                     {110, []byte{2}},
		"sector size":                  {108, []byte{8}},
		"cluster size":                 {109, []byte{30}},
		"no bitmap":                    {root + 32, []byte{0}},
		"bitmap too small":             {root + 32 + 24, []byte{1, 0}},
		"bitmap outside":               {root + 32 + 20, []byte{0xff, 0xff, 0xff, 0}},
		"root chain in a loop":         {p.fat + int64(le.Uint32(b[96:]))*4, b[96:100]},
		"root chain leads out":         {p.fat + int64(le.Uint32(b[96:]))*4, []byte{0, 0, 0, 0}},
		"bitmap does not know of root": {p.bitmap, []byte{0}},
	} {
		um := usedOf(t, d.With(c.off, c.with...))
		if um.FS != "exfat" || um.Kind != "whole" || um.Why == "" || !strings.Contains(um.Why, "exFAT") {
			t.Errorf("%s: kind %s, why %q; want the whole partition", name, um.Kind, um.Why)
		}
	}
}
