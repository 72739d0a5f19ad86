//go:build integration

package daemon

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/server/event"
	"labswarm/server/store"
)

// readerChild is a console in a process of its own: it prints the number of
// each event.
func readerChild(t *testing.T, sock string) {
	c := client.New(sock)
	defer c.Close()
	err := c.Follow(t.Context(), 0, func(e api.Event) { fmt.Println("seq", e.Seq) }, func(api.Tick) {}, nil)
	t.Fatal(err)
}

// reader is such a process.
type reader struct {
	cmd  *exec.Cmd
	seqs chan uint64
}

func (s *site) reader() *reader {
	s.t.Helper()
	r := &reader{cmd: exec.CommandContext(s.t.Context(), os.Args[0], "-test.run=^TestStoppedReaderDelaysNobody$"), seqs: make(chan uint64, 100_000)}
	r.cmd.Env = append(os.Environ(), "DAEMON_READER="+filepath.Join(s.dir, "labswarm.sock"))
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var n uint64
			if _, err := fmt.Sscanf(sc.Text(), "seq %d", &n); err == nil {
				r.seqs <- n
			}
		}
	}()
	s.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-ended
		_ = r.cmd.Wait() // it was killed
	})
	return r
}

// until reads up to an event and wants every one before it, each once.
func (r *reader) until(t *testing.T, from, last uint64) {
	t.Helper()
	limit := time.After(40 * time.Second)
	for want := from; want <= last; want++ {
		select {
		case n := <-r.seqs:
			if n != want {
				t.Fatalf("event %d; want %d", n, want)
			}
		case <-limit:
			t.Fatalf("event %d never came", want)
		}
	}
}

// flood appends n events, as a busy night does.
func (s *site) flood(n int) uint64 {
	s.t.Helper()
	last := uint64(0)
	for n > 0 {
		k := min(n, 50)
		err := s.srv.store.Update(s.t.Context(), func(tx store.Tx) error {
			for range k {
				e, err := event.Append(tx, api.Event{Time: time.Now(), Level: "info", Code: "test", Text: "a line of the log as long as most of them are in a night of work"})
				if err != nil {
					return err
				}
				last = e.Seq
			}
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.srv.engine.Bell().Ring()
		n -= k
	}
	return last
}

// TestStoppedReaderDelaysNobody: ten consoles read on while an eleventh is
// stopped in the middle; it costs the server no memory, and when it goes on it
// misses nothing.
func TestStoppedReaderDelaysNobody(t *testing.T) {
	if sock := os.Getenv("DAEMON_READER"); sock != "" {
		readerChild(t, sock)
	}
	s := newSite(t)
	s.host("a1") // event 1
	var consoles []*reader
	for range 10 {
		consoles = append(consoles, s.reader())
	}
	stopped := s.reader()
	for _, r := range append(consoles, stopped) {
		r.until(t, 1, 1)
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before := heap()
	const events = 6000 // about 1 MiB: more than a socket holds
	begun := time.Now()
	last := s.flood(events)
	for _, r := range consoles {
		r.until(t, 2, last)
	}
	took, grown := time.Since(begun), int64(heap())-int64(before)
	if n := len(stopped.seqs); n >= events {
		t.Fatalf("the stopped reader has %d events: it was not stopped", n)
	}
	if grown > 32<<20 {
		t.Errorf("the server grew by %d bytes", grown)
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stopped.until(t, 2, last)
	t.Log("10 consoles have " + strconv.Itoa(events) + " events after " + took.Round(time.Millisecond).String() + "; server heap grew by " + strconv.FormatInt(grown>>10, 10) + " KiB")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
