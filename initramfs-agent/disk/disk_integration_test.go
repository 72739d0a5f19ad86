//go:build integration

package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/disk/target"
)

const size = 8 << 20

func noise() []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func set(protect bool, names ...string) *disk.Set {
	sys := inventory.Real()
	sys.Only, sys.Loops = names, true
	return disk.NewSet(sys, protect)
}

func only(t *testing.T, s *disk.Set) api.Disk {
	t.Helper()
	list, err := s.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %v, %v", list, err)
	}
	return list[0]
}

func buffer(t *testing.T, n int64, fill byte) []byte {
	t.Helper()
	b, err := disk.Buffer(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = fill
	}
	return b
}

// TestGuardKeepsDisksReadOnly: once listed, a disk cannot be written by anybody
// until an order opens it; then only that one can.
func TestGuardKeepsDisksReadOnly(t *testing.T) {
	a, b := agenttest.NewLoop(t, noise()), agenttest.NewLoop(t, noise())
	s := set(true, a.Name, b.Name)
	list, err := s.List()
	if err != nil || len(list) != 2 {
		t.Fatalf("List = %v, %v", list, err)
	}
	for _, d := range list {
		if d.ReadOnly || d.Note != "" {
			t.Errorf("guarded disk is shown as %+v", d)
		}
	}
	poke := func(dev string) error {
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{1}, 0)
		return errors.Join(err, f.Sync(), f.Close())
	}
	if poke(a.Dev) == nil || poke(b.Dev) == nil {
		t.Error("a guarded disk could be written")
	}
	one := set(true, a.Name)
	_ = only(t, one)
	// The set that guarded the disk is the one that may open it.
	d := list[0]
	if d.Name != a.Name {
		d = list[1]
	}
	id := target.IDOf(d)
	if _, err := s.Open(agenttest.Cleared(t, id)); err == nil {
		t.Fatal("two disks with one identity (seat.img): Open chose one")
	}
	if err := poke(b.Dev); err == nil {
		t.Error("the other disk became writable")
	}
}

func TestWritable(t *testing.T) {
	for _, opts := range [][]string{nil, {"-b", "4096"}} {
		l := agenttest.NewLoop(t, noise(), opts...)
		s := set(true, l.Name)
		w, err := s.Open(agenttest.Cleared(t, target.IDOf(only(t, s))))
		if err != nil {
			t.Fatal(err)
		}
		buf := buffer(t, 1<<20, 0xAA)
		if w.WriteCell(buf, 1<<20) == nil || w.Zero(1<<20, 4096) == nil || w.WriteTable(make([]byte, 64<<10), nil) == nil {
			t.Error("a write before Invalidate was accepted")
		}
		if err := w.Invalidate(64 << 10); err != nil {
			t.Fatal(err)
		}
		if w.WriteCell(buf, 0) == nil || w.Zero(4096, 4096) == nil || w.WriteCell(buf, size) == nil {
			t.Error("a write to the head or behind the end was accepted")
		}
		for _, step := range []error{w.WriteCell(buf, 1<<20), w.WriteCell(buf[64<<10:], 64<<10), w.Zero(2<<20, 1<<20), w.WriteCell(buf, size-512<<10), w.Flush()} {
			if step != nil {
				t.Error(step)
			}
		}
		got := buffer(t, 1<<20, 0)
		if err := w.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, buf) {
			t.Errorf("read back: %v", err)
		}
		if err := w.ReadAt(got, size-512<<10); err != nil || got[0] != 0xAA || got[600<<10] != 0 {
			t.Errorf("read over the end: %v, %x %x", err, got[0], got[600<<10])
		}
		head := bytes.Repeat([]byte{0x11}, 64<<10)
		if err := w.WriteTable(head, bytes.Repeat([]byte{0x22}, 16<<10+4096)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		c := l.Content(t)
		want := noise()
		copy(want, head)
		for i := 64 << 10; i < 2<<20; i++ {
			want[i] = 0xAA
		}
		clear(want[2<<20 : 3<<20])
		clear(want[size-1<<20:])
		for i := size - 512<<10; i < size; i++ {
			want[i] = 0xAA
		}
		copy(want[size-20<<10:], bytes.Repeat([]byte{0x22}, 20<<10))
		if !bytes.Equal(c, want) {
			for i := range c {
				if c[i] != want[i] {
					t.Fatalf("byte %d is %x, want %x", i, c[i], want[i])
				}
			}
		}
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	var w disk.Writable
	if w.Invalidate(4096) == nil || w.WriteCell(nil, 4096) == nil || w.Zero(4096, 512) == nil || w.WriteTable(nil, nil) == nil || w.Flush() == nil {
		t.Error("the zero Writable writes")
	}
	l := agenttest.NewLoop(t, noise())
	if _, err := set(true, l.Name).Open(order.Cleared{}); err == nil {
		t.Error("a disk was opened without a commence")
	}
}

// TestOpenLooksAgain: the disk is compared with the order at the moment of
// opening, not when it was listed.
func TestOpenLooksAgain(t *testing.T) {
	l := agenttest.NewLoop(t, noise())
	s := set(false, l.Name)
	id := target.IDOf(only(t, s))
	for name, change := range map[string]func(*order.DiskID){
		"serial": func(d *order.DiskID) { d.Serial = "other" }, "size": func(d *order.DiskID) { d.Bytes += 512 },
		"sector": func(d *order.DiskID) { d.Sector = 4096 }, "bus": func(d *order.DiskID) { d.Bus = "sata" },
	} {
		wrong := id
		change(&wrong)
		if _, err := s.Open(agenttest.Cleared(t, wrong)); err == nil {
			t.Errorf("opened a disk with another %s", name)
		}
	}
	// Somebody else holds it.
	fd, err := unix.Open(l.Dev, unix.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	var f *api.Fault
	if _, err := s.Open(agenttest.Cleared(t, id)); !errors.As(err, &f) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("Open of a held disk = %v; want EBUSY", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	w, err := s.Open(agenttest.Cleared(t, id))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestForeignData: a disk that is part of something bigger is opened only when
// the order gives up just that, and what came after the decision is seen.
func TestForeignData(t *testing.T) {
	content := noise()
	copy(content[512:], "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001")
	for _, opts := range [][]string{nil, {"-b", "4096"}} {
		l := agenttest.NewLoop(t, content, opts...)
		s := set(true, l.Name)
		d := only(t, s)
		if len(d.Foreign) != 1 || d.Foreign[0].Kind != "lvm" || d.Foreign[0].Where != "the whole disk" {
			t.Fatalf("found %+v; want LVM on the whole disk", d.Foreign)
		}
		before := l.Content(t)
		var f *api.Fault
		for _, replace := range [][]api.Mark{nil, {{Kind: "luks"}}, {{Kind: "lvm", Off: 1 << 20}}} {
			if _, err := s.Open(agenttest.Cleared(t, target.IDOf(d), replace...)); !errors.As(err, &f) || f.Code != api.CodeDiskForeign {
				t.Errorf("Open with %v given up = %v; want code %s", replace, err, api.CodeDiskForeign)
			}
		}
		if !bytes.Equal(before, l.Content(t)) {
			t.Error("the refused disk was changed")
		}
		w, err := s.Open(agenttest.Cleared(t, target.IDOf(d), d.Foreign...))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirectRefused: where the kernel refuses O_DIRECT for a write or a read, the
// work goes on through the page cache, and a read still comes from the medium.
func TestDirectRefused(t *testing.T) {
	l := agenttest.NewLoop(t, noise(), "--direct-io=off")
	s := set(true, l.Name)
	w, err := s.Open(agenttest.Cleared(t, target.IDOf(only(t, s))))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Invalidate(64 << 10); err != nil {
		t.Fatal(err)
	}
	buf := buffer(t, 1<<20, 0x5c)
	const off = 1<<20 + 100 // no driver takes that past the cache
	if err := w.WriteCell(buf[:8192], off); err != nil {
		t.Fatalf("a write that O_DIRECT refuses: %v", err)
	}
	if err := w.WriteCell(buf, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := noise()
	for i := int64(0); i < 8192; i++ {
		want[off+i] = 0x5c
	}
	copy(want[2<<20:3<<20], buf)
	if c := l.Content(t); !bytes.Equal(c[64<<10:size-1<<20], want[64<<10:size-1<<20]) {
		t.Error("the medium does not hold what was written")
	}
	got := buffer(t, 4096, 0)
	if err := w.ReadAt(got, 2<<20); err != nil || got[0] != 0x5c {
		t.Fatalf("read = %x, %v", got[0], err)
	}
	// The medium changes behind the device's back: what the page cache remembers of
	// the last read must not count.
	f, err := os.OpenFile(l.File, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{0xc5}, 2<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := w.ReadAt(got, 2<<20); err != nil || got[0] != 0xc5 {
		t.Errorf("read = %x, %v; want what the medium holds", got[0], err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestShareWhileReading: other hosts are served while the disk is shared with the
// kernel's filesystems and taken back, through the same descriptor; meanwhile
// the partition is there, afterwards it is not.
func TestShareWhileReading(t *testing.T) {
	l := agenttest.NewLoop(t, noise())
	s := set(true, l.Name)
	w, err := s.Open(agenttest.Cleared(t, target.IDOf(only(t, s))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	part := disk.Span{N: 3, Start: 1 << 20, Size: 4 << 20}
	if err := w.Share([]disk.Span{part}); err == nil {
		t.Error("a disk whose writing has not begun was shared")
	}
	if err := w.Invalidate(64 << 10); err != nil {
		t.Fatal(err)
	}
	want := noise()[2<<20 : 3<<20]
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { // until stop
		buf, err := disk.Buffer(1 << 20)
		for err == nil {
			select {
			case <-stop:
				ended <- disk.FreeBuffer(buf)
				return
			default:
			}
			if err = w.ReadAt(buf, 2<<20); err == nil && !bytes.Equal(buf, want) {
				err = errors.New("another content was read")
			}
		}
		ended <- err
	}()
	for range 20 {
		if err := w.Share([]disk.Span{part}); err != nil {
			t.Fatal(err)
		}
		node, err := w.Device(3)
		if err != nil || node != l.Dev+"p3" {
			t.Fatalf("Device = %s, %v", node, err)
		}
		if _, err := w.Device(1); err == nil {
			t.Error("a partition that was not announced has a node")
		}
		f, err := os.Open(node)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<20)
		if _, err := f.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the partition holds something else, %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := w.Unshare(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(node); err == nil {
			t.Error("the partition is still there")
		}
		if fd, err := unix.Open(l.Dev, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0); err == nil {
			t.Errorf("another one could take the disk: %v", unix.Close(fd))
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
