package writer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/images/fsmap/part"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/readback"
	"labswarm/initramfs-agent/scan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ignore(int64, int64) {}

// deploy does what the agent does to a disk; fetched counts the pieces that
// came from the image.
func deploy(ctx context.Context, im *agenttest.Image, d *agenttest.MemDisk) (fetched int, err error) {
	b := im.Bundle
	found, err := scan.Run(ctx, d, b, ignore)
	if err != nil {
		return 0, err
	}
	s, err := Begin(ctx, d, NewPlan(b, d.Size(), found), ignore)
	if err != nil {
		return 0, err
	}
	for i := range b.Manifest.Pieces() {
		if s.Storage.Have(i) {
			continue
		}
		if err := s.Storage.WritePiece(i, im.Piece(i)); err != nil {
			return fetched, err
		}
		fetched++
	}
	for try := 0; ; try++ {
		proof, bad, err := s.Verify(ctx, ignore)
		if err != nil {
			return fetched, err
		}
		if proof.Valid() {
			return fetched, s.Finish(proof)
		}
		if try == 1 {
			return fetched, fmt.Errorf("pieces %v differ twice", bad)
		}
		for _, i := range bad {
			if err := s.Storage.WritePiece(i, im.Piece(i)); err != nil {
				return fetched, err
			}
			fetched++
		}
	}
}

// garbage is a disk with another system on it: noise, and a valid GPT.
func garbage(size int64, seed uint64) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func finished(t *testing.T, im *agenttest.Image, medium []byte) {
	t.Helper()
	im.Check(t, medium)
	tab, err := part.Read(bytes.NewReader(medium), int64(len(medium)), im.Bundle.Manifest.Disk.Sector)
	if err != nil {
		t.Fatalf("partition table: %v", err)
	}
	if len(tab.Parts) != 1 || len(tab.Warnings) > 0 || tab.Label != "gpt" {
		t.Fatalf("partition table: %d partitions, warnings %v", len(tab.Parts), tab.Warnings)
	}
	m := im.Bundle.Manifest
	end, size := m.Parts[0].Start+m.Parts[0].Size, int64(len(medium))
	switch got := tab.Parts[0].End(); {
	case !m.Parts[0].Grow && got != end, got < end:
		t.Fatalf("the partition ends at %d; the image's at %d", got, end)
	case m.Parts[0].Grow && size >= end+3<<20 && (got%(1<<20) != 0 || got < size-2<<20 || got > size-16<<10):
		t.Fatalf("on a disk of %d bytes the partition grew to %d", size, got)
	}
}

func TestDeploySizes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     agenttest.Options
		extra int64 // of the target over the image's disk, bytes
	}{
		{"same size", agenttest.Options{}, 0},
		{"bigger", agenttest.Options{Seed: 1}, 5<<20 + 512},
		{"bigger, grows", agenttest.Options{Seed: 6, Grow: true}, 5<<20 + 512},
		{"bigger, grows, 4096-byte sectors", agenttest.Options{Seed: 7, Sector: 4096, Grow: true}, 9 << 20},
		{"smallest that fits", agenttest.Options{Seed: 2}, -128 << 10},
		{"4096-byte sectors", agenttest.Options{Sector: 4096, Seed: 3}, 8192},
		{"1 MiB cells", agenttest.Options{Cell: 1 << 20, Cells: 9, Seed: 4}, 1 << 20},
		{"4 MiB cells", agenttest.Options{Cell: 4 << 20, Cells: 3, Seed: 5}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im := agenttest.New(t, tt.o)
			size := max(int64(len(im.Raw))+tt.extra, im.Bundle.Manifest.Disk.MinSize)
			d := agenttest.NewMemDisk(garbage(size, tt.o.Seed))
			n, err := deploy(t.Context(), im, d)
			if err != nil || n != im.Bundle.Manifest.Pieces() {
				t.Fatalf("first deployment: %d pieces, %v", n, err)
			}
			finished(t, im, d.Medium())
			first := bytes.Clone(d.Medium())
			d.Reboot()
			n, err = deploy(t.Context(), im, d)
			if err != nil {
				t.Fatal(err)
			}
			// Only what lies under the last MiB may travel again.
			if tail := int((1<<20)/im.Bundle.Manifest.Cell) + 1; n > tail || tt.extra >= 4<<20 && n > 0 {
				t.Errorf("second deployment fetched %d pieces; want at most %d", n, tail)
			}
			if !bytes.Equal(first, d.Medium()) {
				t.Error("the second deployment changed the disk")
			}
		})
	}
}

func TestDeltaWritesOnlyWhatDiffers(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 40})
	m := im.Bundle.Manifest
	d := agenttest.NewMemDisk(garbage(int64(len(im.Raw))+2<<20, 9))
	if _, err := deploy(t.Context(), im, d); err != nil {
		t.Fatal(err)
	}
	// A file of a user in a piece, and something in a zero cell.
	d.Reboot()
	spoilt := used(im, m.CellOf(5)*m.Cell)
	d.Medium()[spoilt] ^= 0xff
	for c := range m.ZeroCells() {
		d.Medium()[used(im, c*m.Cell)] = 1
		break
	}
	n, err := deploy(t.Context(), im, d)
	if err != nil || n != 1 {
		t.Errorf("delta fetched %d pieces, %v; want 1", n, err)
	}
	finished(t, im, d.Medium())
}

// used returns the first used byte from off on.
func used(im *agenttest.Image, off int64) int64 {
	for _, e := range im.Bundle.Manifest.Used() {
		if e.End() > off {
			return max(off, e.Off)
		}
	}
	return off
}

func TestLyingDiskIsFound(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Seed: 11})
	m := im.Bundle.Manifest
	off := m.CellOf(4) * m.Cell
	for _, tt := range []struct {
		name  string
		times int
		ok    bool
	}{{"one write lost", 1, true}, {"writes lost for ever", 1000, false}} {
		t.Run(tt.name, func(t *testing.T) {
			d := agenttest.NewMemDisk(garbage(int64(len(im.Raw)), 5))
			lies := 0
			d.Lie = func(o int64) bool {
				if o == off && lies < tt.times {
					lies++
					return true
				}
				return false
			}
			_, err := deploy(t.Context(), im, d)
			if (err == nil) != tt.ok {
				t.Fatalf("deployment = %v; want success %v", err, tt.ok)
			}
			_, terr := part.Read(bytes.NewReader(d.Medium()), d.Size(), m.Disk.Sector)
			if (terr == nil) != tt.ok {
				t.Errorf("partition table after the end: %v; want one: %v", terr, tt.ok)
			}
		})
	}
}

func TestFinishWantsProof(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	d := agenttest.NewMemDisk(garbage(int64(len(im.Raw)), 6))
	found, err := scan.Run(t.Context(), d, im.Bundle, ignore)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Begin(t.Context(), d, NewPlan(im.Bundle, d.Size(), found), ignore)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(readback.Proof{}); err == nil {
		t.Error("the table was written without a proof")
	}
}

func TestEmptyDiskIsNotReadToTheEnd(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 200})
	d := agenttest.NewMemDisk(make([]byte, len(im.Raw)))
	found, err := scan.Run(t.Context(), d, im.Bundle, ignore)
	if err != nil || !found.Skipped || found.Kept != 0 || len(found.ZeroDirty) != int(im.Bundle.Manifest.ZeroCount()) {
		t.Errorf("scan of an empty disk = %+v, %v", found, err)
	}
}

func TestWriteErrorEndsIt(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	d := agenttest.NewMemDisk(garbage(int64(len(im.Raw)), 6))
	bad := errors.New("input/output error")
	d.Fail = func(off int64) error {
		if off > 3<<20 {
			return bad
		}
		return nil
	}
	if _, err := deploy(t.Context(), im, d); !errors.Is(err, bad) {
		t.Errorf("deployment on a failing disk = %v", err)
	}
}

// TestStaleSignaturesAreCleared: the superblock of a RAID that the order gives up lies in space the image does not
// use; left there, the new system would start the RAID, and the next job would refuse the disk.
func TestStaleSignaturesAreCleared(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{Cells: 40, Seed: 3})
	m := im.Bundle.Manifest
	d := agenttest.NewMemDisk(garbage(int64(len(im.Raw))+2<<20, 4))
	if _, err := deploy(t.Context(), im, d); err != nil {
		t.Fatal(err)
	}
	d.Reboot()
	var at []int64 // pages: in free space, in a used extent, in the table's head, in the tail
	for i, e := range m.Used()[1:] {
		if gap := m.Used()[i].End(); e.Off-gap >= 8192 {
			at = append(at, gap)
			break
		}
	}
	if len(at) == 0 {
		t.Fatal("the image has no hole")
	}
	last := m.Used()[len(m.Used())-1]
	at = append(at, last.Off, 4096, d.Size()-8192)
	copy(d.Medium()[at[0]:], "\xfc\x4e\x2b\xa9")
	found, err := scan.Run(t.Context(), d, im.Bundle, ignore)
	if err != nil {
		t.Fatal(err)
	}
	var marks []api.Mark
	for _, off := range at {
		marks = append(marks, api.Mark{Kind: "mdraid", At: off + 512})
	}
	p := NewPlan(im.Bundle, d.Size(), found, marks...)
	if len(p.stale) != 1 || p.stale[0] != at[0] {
		t.Fatalf("pages to clear: %v; want %d alone", p.stale, at[0])
	}
	s, err := Begin(t.Context(), d, p, ignore)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Pieces() {
		if !s.Storage.Have(i) {
			if err := s.Storage.WritePiece(i, im.Piece(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	proof, _, err := s.Verify(t.Context(), ignore)
	if err != nil || !proof.Valid() {
		t.Fatal(err)
	}
	if err := s.Finish(proof); err != nil {
		t.Fatal(err)
	}
	finished(t, im, d.Medium())
	if bytes.Equal(d.Medium()[at[0]:at[0]+4], []byte("\xfc\x4e\x2b\xa9")) {
		t.Error("the signature is still there")
	}
}
