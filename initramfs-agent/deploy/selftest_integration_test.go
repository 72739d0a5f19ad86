//go:build integration

package deploy

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"labswarm/api"
	"labswarm/images/fsmap/part"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/report"
	"labswarm/initramfs-agent/selftest"
)

// badRAM is memory with one bit stuck at 1.
type badRAM struct{ b []byte }

func (m badRAM) Blocks() int { return len(m.b) / selftest.BlockSize }
func (m badRAM) Block(i int) []byte {
	b := m.b[i*selftest.BlockSize : (i+1)*selftest.BlockSize]
	if i == 0 {
		b[12345] |= 4
	}
	return b
}
func (m badRAM) Close() error { return nil }

// small is a short test of memory, bad or of this machine.
func small(bad bool) selftest.Options {
	o := selftest.Options{Bytes: 2 << 20, Rounds: 10}
	if bad {
		o.Map = func(n int64) (selftest.Memory, error) { return badRAM{make([]byte, n)}, nil }
	}
	return o
}

// failed checks that a host with a bad memory has ended as it should: told, with
// the code, and with a disk that cannot boot.
func failed(t *testing.T, s *agenttest.Server, l *agenttest.Loop, out Outcome, err error, want string) {
	t.Helper()
	if code, text := report.Code(err); code != want || !out.Committed || out.Verified {
		t.Errorf("Run = %+v, code %s (%s); want %s", out, code, text, want)
	}
	if r := s.Last(); r.OK || r.Code != want || r.Readback != "" || r.Fence == 0 || len(s.Results) != 1 {
		t.Errorf("reported %+v; want one failure with code %s", r, want)
	}
	if _, err := part.Read(bytes.NewReader(l.Content(t)), int64(len(l.Content(t))), 512); err == nil {
		t.Error("the disk has a partition table")
	}
	for _, st := range s.Seen() {
		if st == api.StateDone {
			t.Errorf("states reported: %v", s.Seen())
		}
	}
}

// TestSuspectTestsItsMemory: the planner's word makes a real agent test its
// memory in mid-deployment. Good memory: it goes on and is done. Bad memory: the
// host fails before its disk can boot, also when the test ends after all cells
// were read back.
func TestSuspectTestsItsMemory(t *testing.T) {
	for _, tt := range []struct {
		name      string
		bad, late bool
	}{{"good", false, false}, {"bad", true, false}, {"bad, late", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			im := agenttest.New(t, agenttest.Options{Cells: 32})
			s := agenttest.NewServer(t, im)
			l := agenttest.NewLoop(t, noise(int64(len(im.Raw))))
			var begun, written, passed sync.Once
			test, verify, good := make(chan struct{}), make(chan struct{}), make(chan struct{})
			s.Progress = func(p api.Progress) api.ProgressReply {
				rep := s.Plan(p)
				rep.Assignment.Suspect = p.State == api.StateWriting
				if p.SelfTest != "" {
					begun.Do(func() { close(test) })
				}
				if strings.HasPrefix(p.SelfTest, "passed: 2.00 MiB") {
					passed.Do(func() { close(good) })
				}
				if p.State != api.StateWriting && p.SelfTest != "" {
					written.Do(func() { close(verify) })
				}
				return rep
			}
			s.Read = func(piece int) { // not done before the test has begun
				if piece == im.Bundle.Manifest.Pieces()-1 {
					<-test
				}
			}
			c := config(t, s, loops(l.Name))
			c.SelfTest = small(tt.bad)
			if ram := c.SelfTest.Map; tt.late {
				c.SelfTest.Map = func(n int64) (selftest.Memory, error) { <-verify; return ram(n) }
			}
			out, err := Run(t.Context(), c)
			if tt.bad {
				failed(t, s, l, out, err, api.CodeMemory)
				return
			}
			proven(t, s, l, out, err)
			select {
			case <-good:
			default:
				t.Error("the agent did not report that its memory passed")
			}
		})
	}
}

// TestNoSuspectNoTest is the control: nobody's memory is tested without a reason.
func TestNoSuspectNoTest(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	s := agenttest.NewServer(t, im)
	l := agenttest.NewLoop(t, noise(int64(len(im.Raw))))
	c := config(t, s, loops(l.Name))
	c.SelfTest = small(true)
	out, err := Run(t.Context(), c)
	proven(t, s, l, out, err)
}

// TestWrongCellsFromTheServer: the server is always right, so a host that has
// wrong cells from it tests its own memory. Passed, it goes on; when that happens
// again and again it fails in a way of its own.
func TestWrongCellsFromTheServer(t *testing.T) {
	for _, tt := range []struct {
		bad    bool
		code   string
		copies int // of one piece
	}{{true, api.CodeMemory, 4}, {false, api.CodeCorrupt, 12}} {
		t.Run(tt.code, func(t *testing.T) {
			im := agenttest.New(t, agenttest.Options{})
			s := agenttest.NewServer(t, im)
			l := agenttest.NewLoop(t, noise(int64(len(im.Raw))))
			s.Lie = func(piece int) bool { return piece == 3 }
			c := config(t, s, loops(l.Name))
			c.SelfTest = small(tt.bad)
			out, err := Run(t.Context(), c)
			failed(t, s, l, out, err, tt.code)
			if r := s.Last(); r.HashFailures != tt.copies {
				t.Errorf("%d wrong cells came; want %d, then an end", r.HashFailures, tt.copies)
			}
		})
	}
}
