//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/e2e/classroom"
	"labswarm/internal/testvm"
)

// testWriter puts the classroom's lines into the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// room runs a classroom and fails the test unless every terminal came through.
func room(t *testing.T, o classroom.Options) *classroom.Report {
	t.Helper()
	r := tryRoom(t, o)
	if r.ExitCode() != classroom.ExitOK {
		for _, h := range r.Hosts {
			t.Errorf("%s (%s): %s, verified %v, local system %v: %s", h.Name, h.Firmware, h.State, h.Verified, h.LocalOS, h.Error)
		}
		t.FailNow()
	}
	return r
}

// tryRoom runs a classroom that must produce a report, good or not.
func tryRoom(t *testing.T, o classroom.Options) *classroom.Report {
	t.Helper()
	needLAN(t)
	needVMs(t, firmwares...)
	o = withPrograms(t, o)
	o.Report = filepath.Join(reportDir(t), "report.json")
	r, err := classroom.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func withPrograms(t *testing.T, o classroom.Options) classroom.Options {
	t.Helper()
	o.Binary, o.BootDir = programs(t)
	o.Out = testWriter{t}
	if o.Timeout == 0 {
		o.Timeout = 6 * time.Minute
	}
	return o
}

// dirty fills the disk with 0xa5, so that a used byte that was never written shows.
func dirty(_ int, c *testvm.Config) error {
	for _, d := range c.Disks {
		f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		block := bytes.Repeat([]byte{0xa5}, 1<<20)
		for off := int64(0); off < st.Size(); off += int64(len(block)) {
			if _, err := f.WriteAt(block[:min(int64(len(block)), st.Size()-off)], off); err != nil {
				return errors.Join(err, f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// TestRoomThreeFirmwares is the whole journey on all three firmwares at once, beside
// a router, onto disks that held other data: netboot, deployment from each other,
// independent comparison, own system.
func TestRoomThreeFirmwares(t *testing.T) {
	r := room(t, classroom.Options{
		ImageFile: tinyImage(t, "tiny"), Terminals: 3, Firmware: firmwares, DiskBytes: 256 << 20,
		CheckDisks: true, Tune: dirty, Expect: regexp.MustCompile(`LABSWARM-BOOTED {host} fw=\w+ sb=\d`), // its own name, not the image's
	})
	peers := int64(0)
	for _, h := range r.Hosts {
		peers += h.BytesFromPeers
		if h.CellsWritten+h.CellsKept < r.Image.Cells {
			t.Errorf("%s: %d cells written and %d kept of %d", h.Name, h.CellsWritten, h.CellsKept, r.Image.Cells)
		}
	}
	if peers == 0 {
		t.Error("the terminals took nothing from each other")
	}
	if c := r.Copies(); c > 2 {
		t.Errorf("the server sent %.2f copies to 3 terminals; want close to 1", c)
	}
}

// bigTiny is a tiny image that takes some seconds to write, so that "half-way" can
// be caught.
func bigTiny(t *testing.T) string {
	return tinyImage(t, "tiny-big", "--data", "160", "--fill", "128")
}

// atHalf calls do once, when host is writing and at least half-way.
func atHalf(host string, do func(ctx context.Context, s *classroom.Session) error) (hook func(context.Context, *classroom.Session, api.Job) error, done *bool) {
	done = new(bool)
	return func(ctx context.Context, s *classroom.Session, job api.Job) error {
		for _, slot := range job.Slots {
			if *done || slot.Host != host || slot.State != api.StateWriting || slot.Percent < 50 {
				continue
			}
			*done = true
			return do(ctx, s)
		}
		return nil
	}, done
}

// TestTerminalKilledMidWrite cuts the power of a terminal at 50 % and switches it on
// again: it resumes and ends confirmed; so does the one that took data from it.
func TestTerminalKilledMidWrite(t *testing.T) {
	hook, done := atHalf("pc01", func(ctx context.Context, s *classroom.Session) error {
		pc := s.Terminals()[0]
		if err := pc.PowerCut(); err != nil {
			return err
		}
		return pc.PowerOn(ctx)
	})
	r := room(t, classroom.Options{
		ImageFile: bigTiny(t), Terminals: 2, Firmware: []testvm.Firmware{testvm.BIOS}, DiskBytes: 512 << 20,
		CheckDisks: true, OnJob: hook, Expect: regexp.MustCompile(`LABSWARM-BOOTED`),
	})
	if !*done {
		t.Fatal("pc01 was never seen writing at 50 %: nothing was tested")
	}
	if a := r.Hosts[0].Attempts; a < 2 {
		t.Errorf("pc01 made %d attempts; want 2", a)
	}
}

// TestServerKilledMidJob kills the server at 50 % and starts it again: nothing that
// was promised is lost, every terminal ends confirmed.
func TestServerKilledMidJob(t *testing.T) {
	hook, done := atHalf("pc01", func(ctx context.Context, s *classroom.Session) error {
		if err := s.KillServer(); err != nil {
			return err
		}
		time.Sleep(3 * time.Second) // the terminals notice
		return s.StartServer(ctx)
	})
	room(t, classroom.Options{
		ImageFile: bigTiny(t), Terminals: 2, Firmware: []testvm.Firmware{testvm.BIOS}, DiskBytes: 512 << 20,
		CheckDisks: true, OnJob: hook, Expect: regexp.MustCompile(`LABSWARM-BOOTED`),
	})
	if !*done {
		t.Fatal("pc01 was never seen writing at 50 %: nothing was tested")
	}
}

// TestForeignImages deploys disks of other shapes: MBR, NTFS, XFS, other buses, and
// with labswarm as the DHCP server.
func TestForeignImages(t *testing.T) {
	for _, tt := range []struct {
		name  string
		image []string
		fw    testvm.Firmware
		bus   testvm.Bus
		dhcp  string
		disk  int64
		says  string // the PC's own name, where the image's filesystem can take it
	}{
		{"mbr-ntfs", []string{"--table", "mbr", "--with", "ntfs", "--esp", "40"}, testvm.BIOS, testvm.Virtio, classroom.DHCPOwn, 256 << 20, "tinyos"},
		{"gpt-xfs", []string{"--with", "xfs", "--esp", "64"}, testvm.UEFI, testvm.NVMe, classroom.DHCPProxy, 512 << 20, "{host}"},
		{"mbr-fat", []string{"--table", "mbr", "--with", "fat", "--data", "33"}, testvm.BIOS, testvm.SATA, classroom.DHCPProxy, 256 << 20, "tinyos"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			room(t, classroom.Options{
				ImageFile: tinyImage(t, "tiny-"+tt.name, tt.image...), Terminals: 1, Firmware: []testvm.Firmware{tt.fw},
				DiskBytes: tt.disk, DiskBus: tt.bus, DHCP: tt.dhcp, CheckDisks: true, Tune: dirty,
				Expect: regexp.MustCompile(`LABSWARM-BOOTED ` + tt.says + ` `),
			})
		})
	}
}

// open opens a classroom that is closed with the test.
func open(t *testing.T, o classroom.Options) *classroom.Session {
	t.Helper()
	s, err := classroom.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// waitLocal waits until the terminal's own tiny OS has spoken and switched it off.
func waitLocal(t *testing.T, s *classroom.Session, pc *classroom.Terminal, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := pc.VM().WaitSerial(ctx, regexp.MustCompile(`LABSWARM-BOOTED.*`), 0)
	if err != nil {
		t.Fatalf("%v\nserver log:\n%s", err, s.ServerLog(15))
	}
	t.Logf("%s (%s): %s", pc.Name, pc.VM().Firmware, strings.TrimSpace(m))
	select {
	case <-pc.VM().Done():
	case <-ctx.Done():
		t.Fatalf("%s did not switch itself off", pc.Name)
	}
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func hash(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // read only
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
