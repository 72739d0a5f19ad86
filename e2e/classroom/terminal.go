package classroom

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/internal/testnet"
	"labswarm/internal/testvm"
)

// Terminal is one virtual PC of a session.
type Terminal struct {
	Name string
	Disk string // raw file
	vm   *testvm.VM
	s    *Session

	expect *regexp.Regexp // what its own system says

	events chan testvm.Event
	stop   chan struct{} // closed by close
	done   chan struct{} // closed when follow has ended

	mu       sync.Mutex
	on       bool      // switched on and not switched off by us
	offSince time.Time // when it was first seen off although it is on
	own      []api.TimelineEntry
	localOS  bool
	checked  bool
	checkErr error
	err      string // what went wrong, as the classroom sees it
}

// newTerminal makes terminal i (from 0), its disk included; it is off.
func (s *Session) newTerminal(i int) (*Terminal, error) {
	t := &Terminal{
		Name: fmt.Sprintf("pc%02d", i+1), s: s, events: make(chan testvm.Event, 64),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	var err error
	if t.expect, err = expectFor(s.Expect, t.Name); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.work, t.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of terminal %s: %w", t.Name, err)
	}
	t.Disk = filepath.Join(dir, "disk.raw")
	if s.KeepDisks != "" {
		if err := os.MkdirAll(s.KeepDisks, 0o755); err != nil {
			return nil, fmt.Errorf("make folder for disks: %w", err)
		}
		t.Disk = filepath.Join(s.KeepDisks, t.Name+".raw")
	}
	if err := makeDisk(t.Disk, s.DiskBytes); err != nil {
		return nil, err
	}
	c := testvm.Config{
		Name: t.Name, Dir: dir, Firmware: s.Firmware[i%len(s.Firmware)], MAC: testvm.MAC(i + 1), UUID: testvm.UUID(i + 1),
		Disks: []testvm.Disk{{Path: t.Disk, Bus: s.DiskBus, Serial: fmt.Sprintf("LSDISK%02d", i+1)}},
		Tap:   testnet.Tap(i), Namespace: s.net.Name, MemoryMiB: s.MemoryMiB,
	}
	if s.Tune != nil {
		if err := s.Tune(i, &c); err != nil {
			return nil, fmt.Errorf("change terminal %s: %w", t.Name, err)
		}
	}
	vm, err := testvm.New(c)
	if err != nil {
		return nil, err
	}
	t.vm = vm
	vm.OnEvent(func(e testvm.Event) {
		select {
		case t.events <- e:
		default: // follow is far behind; losing a RESET only costs the disk check
		}
	})
	go t.follow()
	return t, nil
}

// expectFor puts a terminal's name into what all terminals are to say.
func expectFor(all *regexp.Regexp, name string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(strings.ReplaceAll(all.String(), "{host}", regexp.QuoteMeta(name)))
	if err != nil {
		return nil, fmt.Errorf("what terminal %s is to say: %w", name, err)
	}
	return re, nil
}

// makeDisk makes a sparse file, or takes an existing one of that very size.
func makeDisk(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.Size() == 0:
		err = f.Truncate(size)
	case st.Size() != size:
		err = fmt.Errorf("%s exists and has %d bytes, not %d; remove it or give another --keep-disks", path, st.Size(), size)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// Terminals of the session, in order.
func (s *Session) Terminals() []*Terminal { return s.terminals }

// VM is the machine, for tests that watch its serial port.
func (t *Terminal) VM() *testvm.VM { return t.vm }

// PowerOn switches the terminal on.
func (t *Terminal) PowerOn(ctx context.Context) error {
	t.mu.Lock()
	t.on, t.offSince = true, time.Time{}
	t.mu.Unlock()
	t.s.start()
	t.note("power on")
	return t.vm.Start(ctx)
}

// PowerCut takes the power away: nothing in the guest gets a chance to finish.
func (t *Terminal) PowerCut() error {
	t.mu.Lock()
	t.on = false
	t.mu.Unlock()
	t.note("power cut")
	return t.vm.Kill()
}

// note adds an event to the terminal's own timeline.
func (t *Terminal) note(event string) {
	t.mu.Lock()
	t.own = append(t.own, api.TimelineEntry{At: time.Now(), Event: event})
	t.mu.Unlock()
}

// follow handles the machine's events until close.
func (t *Terminal) follow() {
	defer close(t.done)
	for {
		select {
		case <-t.stop:
			return
		case e := <-t.events:
			if e.Name != "RESET" || !e.Guest {
				continue
			}
			t.note("reset")
			if t.s.CheckDisks {
				t.checkDisk()
			}
		}
	}
}

// checkDisk compares the disk at the one moment when it must equal the image: the
// guest has just reset itself after DONE, and firmware, which writes no disks, has
// only begun. The processor stands still meanwhile.
func (t *Terminal) checkDisk() {
	t.mu.Lock()
	done := t.checked
	t.mu.Unlock()
	if done {
		return
	}
	err := t.vm.Pause()
	if err == nil {
		if t.proven() {
			start := time.Now()
			var c *Comparison
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			c, err = CompareDisk(ctx, t.s.ImageFile, t.Disk, t.Name)
			cancel()
			t.mu.Lock()
			t.checked, t.checkErr = true, err
			t.mu.Unlock()
			if err == nil {
				t.note(fmt.Sprintf("disk compared with the image: %d used bytes of %d partitions are equal, and %d files of those with its own name", c.Bytes, c.Partitions, c.Files))
				t.s.say.line("%s: disk equals the image: %d used bytes of %d partitions and %d files beside its own identity, independently read (%.1f s)",
					t.Name, c.Bytes, c.Partitions, c.Files, time.Since(start).Seconds())
			}
		}
		err = errors.Join(err, t.vm.Resume())
	}
	if err != nil {
		t.note("disk check: " + err.Error())
		t.s.say.line("%s: disk check: %v", t.Name, err)
	}
}

// proven asks the server whether this terminal's disk is proven in its newest job;
// a server that is just being restarted gets some time.
func (t *Terminal) proven() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		var jobs []api.Job
		if err := t.s.admin.get(ctx, api.RouteJobs, &jobs); err == nil {
			for _, j := range jobs { // newest first
				for _, slot := range j.Slots {
					if slot.Host == t.Name {
						return slot.State.Good()
					}
				}
			}
			return false
		}
		time.Sleep(200 * time.Millisecond)
	}
	return false
}

// sawLocalOS looks for the expected text since the last reset.
func (t *Terminal) sawLocalOS() (bool, error) {
	t.mu.Lock()
	seen := t.localOS
	t.mu.Unlock()
	if seen {
		return true, nil
	}
	b, err := t.vm.Serial(t.vm.LastReset())
	if err != nil || !t.expect.Match(b) {
		return false, err
	}
	t.mu.Lock()
	t.localOS = true
	t.mu.Unlock()
	t.note("local system seen")
	return true, nil
}

// close switches the machine off and ends follow.
func (t *Terminal) close() error {
	close(t.stop)
	err := t.vm.Kill() // a check in progress sees its machine gone and ends
	<-t.done
	return err
}
