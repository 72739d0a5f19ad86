package writer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"labswarm/images/fsmap/part"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/disk"
)

// bench cuts the power of deployments over an older system of the same shape:
// after each write in turn, on a disk that loses, tears and reorders what was
// not flushed.
type bench struct {
	im    *agenttest.Image
	start []byte // the disk before: a complete older system
	end   []byte // the disk after a deployment that nothing disturbed
}

func newBench(t *testing.T, o agenttest.Options) *bench {
	t.Helper()
	b := &bench{im: agenttest.New(t, o)}
	d := agenttest.NewMemDisk(garbage(int64(len(b.im.Raw))+3<<20, 1))
	if _, err := deploy(t.Context(), b.im, d); err != nil {
		t.Fatal(err)
	}
	b.end = d.Medium()
	b.start = bytes.Clone(b.end)
	for i := 64 << 10; i < len(b.start)-1<<20; i += 1000 {
		b.start[i] ^= 0x5a
	}
	return b
}

// run deploys with the power cut after the given number of writes, once more
// when the work is done. done tells that the deployment called itself finished.
func (b *bench) run(t *testing.T, cut int, seed uint64, prep func(*agenttest.MemDisk)) (d *agenttest.MemDisk, done bool) {
	t.Helper()
	d = agenttest.NewMemDisk(bytes.Clone(b.start))
	d.CutAfter, d.Rand = cut, rand.New(rand.NewPCG(uint64(cut), seed))
	if prep != nil {
		prep(d)
	}
	_, err := deploy(t.Context(), b.im, d)
	if err != nil && !errors.Is(err, agenttest.ErrPowerCut) {
		t.Fatalf("cut after write %d: %v", cut, err)
	}
	if err == nil {
		d.Cut()
	}
	return d, err == nil
}

// broken says what a cut must never leave; "" means that the disk is as it may be.
func (b *bench) broken(d *agenttest.MemDisk, done bool) string {
	medium := d.Medium()
	_, err := part.Read(bytes.NewReader(medium), int64(len(medium)), b.im.Bundle.Manifest.Disk.Sector)
	old := bytes.Equal(medium[64<<10:len(medium)-disk.Tail], b.start[64<<10:len(medium)-disk.Tail])
	switch {
	case done && !b.complete(medium):
		return "called done, but not all of it is on the medium"
	case done && d.Cached() > 0:
		return "proven by what only the cache held"
	case err == nil && !old && !b.complete(medium):
		return "a partition table over half an image"
	}
	return ""
}

// complete compares every byte the image uses, the fitted table and its backup
// with the undisturbed disk.
func (b *bench) complete(medium []byte) bool {
	for _, e := range b.im.Bundle.Manifest.Used() {
		if !bytes.Equal(medium[e.Off:e.End()], b.end[e.Off:e.End()]) {
			return false
		}
	}
	return bytes.Equal(medium[len(medium)-20<<10:], b.end[len(medium)-20<<10:])
}

// TestPowerCutAfterEveryWrite: after each cut the disk has no partition table,
// or is complete (or still the old system, before anything was flushed), and the
// next boot ends with the same bytes.
func TestPowerCutAfterEveryWrite(t *testing.T) {
	b := newBench(t, agenttest.Options{Cells: 64, Seed: 7, Grow: true})
	cuts, resumed := 0, 0
	for done := false; !done; {
		cuts++
		var d *agenttest.MemDisk
		d, done = b.run(t, cuts, 3, nil)
		if why := b.broken(d, done); why != "" {
			t.Fatalf("cut after write %d: %s", cuts, why)
		}
		d.Reboot()
		if _, err := deploy(t.Context(), b.im, d); err != nil {
			t.Fatalf("cut after write %d: resume: %v", cuts, err)
		}
		if !b.complete(d.Medium()) {
			t.Fatalf("cut after write %d: the resumed disk differs from the undisturbed one", cuts)
		}
		resumed++
	}
	m := b.im.Bundle.Manifest
	if cuts < m.Pieces()+4 || resumed != cuts {
		t.Fatalf("only %d cuts were tried for %d pieces, two clearings and two tables", cuts, m.Pieces())
	}
	t.Logf("%d power cuts, %d resumed to the same bytes", cuts, resumed)
}

// TestPowerCutNegativeControls: the test above fails when the old table is not
// taken away first, and when any one of the flushes is left out.
func TestPowerCutNegativeControls(t *testing.T) {
	b := newBench(t, agenttest.Options{Cells: 12, Seed: 7})
	d, _ := b.run(t, 0, 1, nil)
	flushes := d.Flushes()
	if flushes < 4 {
		t.Fatalf("a deployment flushes %d times; want it after clearing, before read-back, after each table", flushes)
	}
	for n := 0; n <= flushes; n++ {
		found := map[string]int{}
		for seed := range uint64(4) {
			for cut, done := 1, false; !done; cut++ {
				var d *agenttest.MemDisk
				d, done = b.run(t, cut, seed, func(d *agenttest.MemDisk) { d.NoFlush, d.Careless = n, n == 0 })
				if why := b.broken(d, done); why != "" {
					found[why]++
				}
			}
		}
		t.Logf("flush %d left out (0: old table not taken away): %v", n, found)
		if len(found) == 0 {
			t.Errorf("flush %d left out: no cut showed it, so the power-cut test proves nothing about it", n)
		}
	}
}
