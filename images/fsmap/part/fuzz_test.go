package part

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

func FuzzRead(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const size = 64 * MiB
		b = fixSums(b)
		r := padded{b, size}
		for _, sector := range []int{0, 512, 4096} {
			tab, err := Read(r, size, sector)
			if err != nil {
				continue
			}
			end := int64(0)
			for _, p := range slices.SortedFunc(slices.Values(tab.Parts), func(a, b Entry) int { return int(a.Start - b.Start) }) {
				if p.Start < end || p.Size <= 0 || p.End() > size {
					t.Fatalf("partition %+v outside or overlapping", p)
				}
				end = p.End()
			}
			for _, e := range tab.MustShip() {
				if e.Off < 0 || e.Len <= 0 || e.End() > size {
					t.Fatalf("must-ship %+v outside", e)
				}
			}
			fits(t, tab)
		}
	})
}

// fixSums makes the checksums of a GPT right, or else no mutation would get past them.
func fixSums(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < 1024 || string(b[512:520]) != gptSignature {
		return b
	}
	h := b[512:1024]
	start, n := le.Uint64(h[72:])*512, uint64(le.Uint32(h[80:]))*entrySize
	if start < uint64(len(b)) && n <= HeadSize {
		ents := make([]byte, n)
		copy(ents, b[start:])
		le.PutUint32(h[88:], crc32.ChecksumIEEE(ents))
	}
	if c := le.Uint32(h[12:]); c >= 92 && c <= 512 {
		le.PutUint32(h[16:], headerCRC(h))
	}
	return b
}

// fits checks that whatever Read accepts can be adapted and read again.
func fits(t *testing.T, tab *Table) {
	t.Helper()
	for i, size := range []int64{96 * MiB, tab.Size, tab.MinSize(), 100 * MiB, 5 << 40} {
		grow := i > 2
		primary, backup, err := Adapt(tab, size/4096*4096, grow)
		if err != nil {
			var small *SizeError
			if !errors.As(err, &small) {
				t.Fatalf("Adapt to %d = %v", size, err)
			}
			continue
		}
		if len(primary) > HeadSize || len(backup) > HeadSize {
			t.Fatalf("Adapt made %d and %d bytes", len(primary), len(backup))
		}
		head := append(primary, make([]byte, HeadSize-len(primary))...)
		got, err := ReadHead(head, size/4096*4096, tab.Sector)
		if err != nil {
			t.Fatalf("ReadHead after Adapt = %v", err)
		}
		if tab.Label == "gpt" && !grow {
			if d := cmp.Diff(tab.Parts, got.Parts); d != "" {
				t.Fatalf("partitions changed: %s", d)
			}
		}
	}
}

// padded reads zeros after b.
type padded struct {
	b    []byte
	size int64
}

func (p padded) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(b)) > p.size {
		return 0, fmt.Errorf("read of %d bytes at %d is outside the disk", len(b), off)
	}
	clear(b)
	if off < int64(len(p.b)) {
		copy(b, p.b[off:])
	}
	return len(b), nil
}

// seeds are the table sectors of real disks: sector 0 to the third entry sector, small enough to fuzz well.
func seeds(f *testing.F) [][]byte {
	k := fixture.New(f, testreq.Tool)
	g := load(f, k.Disk(64*MiB, strings.Replace(gptScript, "start=2048", "first-lba: 40\nstart=2048", 1), nil))
	m := load(f, k.Disk(64*MiB, "label: dos\nstart=1,size=8,type=83\nstart=10,size=500,type=5\nstart=12,size=4,type=83\nstart=20,size=8,type=83\n", nil))
	return [][]byte{g[:34*512], m[:40*512], g[:1024]}
}
