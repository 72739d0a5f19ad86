//go:build integration

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
)

// TestHundredHosts: a room of 100 hosts, each a process in a namespace of its
// own, loses its server for a minute and ten hosts for good or for a while. The
// server (tracker and seed) and the hosts end by SIGKILL, in the middle of the
// transfer, which goes over mutual TLS as in the product. All that live at the end
// must hold the image, every byte of it.
//
// The links are slow, so that the machine is not the brake: nothing here
// measures speed, and the deadline only catches a hang.
func TestHundredHosts(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "tc", "iproute2")
	const (
		deadline = 10 * time.Minute
		outage   = 60 * time.Second
		killed   = 10
		back     = 5 // of the killed ones
	)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	h := newHundred(t, ctx, plain("hundred", 100, 4, 32, 64, "ours"))
	order := rand.New(rand.NewPCG(h.luck, 0)).Perm(h.sc.n)[:killed]
	for k := range order {
		order[k]++ // hosts count from 1
	}
	t.Logf("luck %d: kills hosts %v, the last %d come back", h.luck, order, back)

	h.until("a quarter of the image is in the middle of the room", func() bool { return h.holding(h.sc.cells()/4) > h.sc.n/2 })
	down := time.Now()
	h.check(h.seed[0].end())
	h.kill(order[:killed/2])
	h.wait(outage / 2)
	h.kill(order[killed/2:])
	h.wait(outage - time.Since(down))
	if n := h.holding(h.sc.cells()); n > 0 {
		t.Fatalf("%d hosts were done without a server: it died too late, the test shows nothing", n)
	}
	h.seed = nil
	h.check(h.startSeed(ctx))
	t.Logf("the server is back after %.0f s", time.Since(down).Seconds())
	for _, i := range order[killed-back:] {
		h.check(h.hosts[i].end())
		h.check(h.loadHost(i))
		h.check(h.run.until(ctx, fmt.Sprintf("host %d, once more", i), h.hosts[i], h.hosts[i], lineGate))
		h.check(h.hosts[i].let())
	}
	gone := map[int]bool{}
	for _, i := range order[:killed-back] {
		gone[i] = true
	}
	h.until("all living hosts are done", func() bool { return h.done(gone) == h.sc.n-len(gone) })
	t.Logf("%d hosts done %.0f s after the start", h.sc.n-len(gone), time.Since(h.start).Seconds())
	for i := 1; i <= h.sc.n; i++ {
		if gone[i] {
			continue
		}
		if err := sameFile(h.env.payload.file(), filepath.Join(h.env.outDir(i), payloadName)); err != nil {
			t.Errorf("host %d: %v", i, err)
		}
	}
}

// hundred is a run whose disturbances the test makes.
type hundred struct {
	*run
	t    *testing.T
	ctx  context.Context
	luck uint64 // a failure tells it; set it to see the same hosts killed
}

// newHundred builds the room, lets the hosts begin and removes everything at
// the test's end.
func newHundred(t *testing.T, ctx context.Context, sc scenario) *hundred {
	t.Helper()
	own, err := testnet.OwnName(workSuffix)
	h := &hundred{t: t, ctx: ctx, luck: uint64(time.Now().UnixNano())}
	h.check(err)
	e := env{sc: sc, n: sc.n, tls: true, dir: filepath.Join(roomy(t), own)}
	e.self, err = os.Executable()
	h.check(err)
	h.check(sweep(ctx, filepath.Dir(e.dir)))
	h.check(os.Mkdir(e.dir, 0o700))
	t.Cleanup(func() { h.check(os.RemoveAll(e.dir)) })
	e.payload, err = newPayload(ctx, e.dir, sc, announceURL())
	h.check(err)
	room, err := newRoom(ctx, sc)
	t.Cleanup(func() { h.check(room.close()) })
	h.check(err)
	h.run = &run{room: room, env: e, sc: sc, scheme: schemes()[0], hosts: map[int]*proc{}}
	t.Cleanup(func() { h.check(h.stop()) })
	for i := 1; i <= sc.n; i++ {
		h.check(os.MkdirAll(e.outDir(i), 0o700))
	}
	h.env.resume = true
	h.check(h.startSeed(ctx))
	h.check(h.loadHosts(ctx))
	h.start = time.Now()
	h.check(h.letHosts(ctx))
	return h
}

// roomy is a directory with space for all hosts' disks: in memory if there is
// enough of it.
func roomy(t *testing.T) string {
	const need = 8 << 30 // bytes
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err == nil && int64(st.Bavail)*st.Bsize > need {
		return "/dev/shm"
	}
	return t.TempDir()
}

func (h *hundred) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hundred) wait(d time.Duration) { h.check(pause(h.ctx, d)) }

// kill ends hosts as a power cut does.
func (h *hundred) kill(list []int) {
	h.t.Helper()
	for _, i := range list {
		h.check(h.hosts[i].Signal(syscall.SIGKILL))
	}
}

// holding counts the hosts that said they hold so many cells.
func (h *hundred) holding(cells int) (n int) {
	for _, p := range h.hosts {
		p.mu.Lock()
		if p.have >= cells {
			n++
		}
		p.mu.Unlock()
	}
	return n
}

// done counts the hosts that are done; one that has ended and is not among the
// gone is a failure.
func (h *hundred) done(gone map[int]bool) (n int) {
	h.t.Helper()
	for i := range h.hosts {
		if gone[i] {
			continue
		}
		_, ok, err := h.finished(i)
		h.check(err)
		if ok {
			n++
		}
	}
	return n
}

// until waits for a condition within the test's deadline and tells how far the
// room is every 20 s.
func (h *hundred) until(what string, cond func() bool) {
	h.t.Helper()
	told := time.Now()
	for !cond() {
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			h.t.Logf("%.0f s: %s", time.Since(h.start).Seconds(), h.state())
		}
		if err := pause(h.ctx, 50*time.Millisecond); err != nil {
			h.t.Fatalf("timed out waiting until %s: %s", what, errors.Join(errors.New(h.state()), h.laggards()))
		}
	}
}

// state says how much of the image the hosts hold.
func (h *hundred) state() string {
	all := h.sc.cells()
	return fmt.Sprintf("%d hosts hold a quarter, %d half, %d all of the image", h.holding(all/4), h.holding(all/2), h.holding(all))
}

// laggards names a few hosts that are not done, with what they fetch from.
func (h *hundred) laggards() (err error) {
	for i := 1; i <= h.sc.n; i++ {
		p := h.hosts[i]
		p.mu.Lock()
		if _, ok := p.words[lineDone]; !ok {
			err = errors.Join(err, fmt.Errorf("host %d: %d cells, parent %s", i, p.have, p.parent))
		}
		p.mu.Unlock()
	}
	return err
}
