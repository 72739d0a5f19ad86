package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/internal/testreq"
	"labswarm/server/httpapi"
)

// room is a server's desk with a room in the middle of a job; only what the
// console asks for is there.
type room struct {
	httpapi.AdminService
	mu  sync.Mutex
	job api.Job
}

func newRoom() *room {
	r := &room{job: api.Job{ID: 118, Image: "deb12-lab", Version: "14", Room: "A101", Percent: 61, BytesShipped: 360 << 20, SeedSent: 378 << 20, RateBps: 180 << 20, EtaS: 60}}
	for i, s := range []api.State{api.StateWriting, api.StateConfirmed, api.StateFailed} {
		slot := api.Slot{Host: fmt.Sprintf("a0%d", i+1), State: s, Since: time.Now(), Percent: 42, RateBps: 90 << 20, Attempt: 1}
		if s == api.StateFailed {
			slot.Code, slot.Error = api.CodeDiskWrite, "write cell 18743: input/output error \x1b[31m"
		}
		r.job.Slots = append(r.job.Slots, slot)
	}
	return r
}

func (r *room) now() api.Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.job
}

func (r *room) Server(context.Context) (api.ServerInfo, error) {
	return api.ServerInfo{Name: "lab1", Ready: true}, nil
}
func (r *room) Rooms(context.Context) ([]api.Room, error) { return []api.Room{{Name: "A101"}}, nil }
func (r *room) Hosts(context.Context) (out []api.Host, _ error) {
	for i := range 3 {
		out = append(out, api.Host{Name: fmt.Sprintf("a0%d", i+1), Room: "A101", MAC: fmt.Sprintf("02:00:00:00:00:0%d", i+1)})
	}
	return out, nil
}
func (r *room) ImageList(context.Context) ([]api.Image, error) {
	return []api.Image{{Name: "deb12-lab"}}, nil
}
func (r *room) Jobs(context.Context) ([]api.Job, error)      { return []api.Job{r.now()}, nil }
func (r *room) Job(context.Context, uint64) (api.Job, error) { return r.now(), nil }
func (r *room) LastEvent(context.Context) (uint64, error)    { return 0, nil }
func (r *room) Wake() (<-chan struct{}, func())              { return nil, func() {} }
func (r *room) Tick(context.Context) (api.Tick, error) {
	return api.Tick{Time: time.Now(), Jobs: []api.Job{r.now()}}, nil
}
func (r *room) EventsSince(context.Context, uint64, int) ([]api.Event, error) { return nil, nil }

// open serves the real admin routes on sock until the returned function, which
// may be called twice, ends it.
func (r *room) open(t *testing.T, sock string) (shut func()) {
	t.Helper()
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- httpapi.NewAdmin(r, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	shut = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	t.Cleanup(shut)
	return shut
}

// screen is a terminal of tmux in which the program runs.
type screen struct {
	t          *testing.T
	tmux, sock string
}

// newScreen starts the console in a terminal; env is NAME=VALUE words. After
// the program the terminal shows its exit code and whether it echoes.
func newScreen(t *testing.T, state string, w, h int, env string) *screen {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test binary is the program when it is called by its name.
	bin := filepath.Join(t.TempDir(), "labswarm")
	if err := os.Symlink(self, bin); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, tmux: testreq.Tool(t, "tmux", "tmux"), sock: filepath.Join(t.TempDir(), "tmux")}
	line := fmt.Sprintf("env %s LABSWARM_STATE_DIR=%s %s; echo exit=$?; stty -a | grep -o -- '[-]*echo ' ; exec sleep 60", env, state, bin)
	s.run("-f", "/dev/null", "new-session", "-d", "-s", "c", "-x", fmt.Sprint(w), "-y", fmt.Sprint(h), line)
	t.Cleanup(func() { s.run("kill-server") })
	return s
}

func (s *screen) run(args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(context.Background(), s.tmux, append([]string{"-S", s.sock}, args...)...)
	cmd.Env = append(os.Environ(), "TMUX=", "LC_ALL=C.UTF-8", "SHELL=/bin/sh")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (s *screen) keys(keys ...string) {
	s.t.Helper()
	s.run(append([]string{"send-keys", "-t", "c"}, keys...)...)
}

// wait waits until the terminal shows all of the words, and returns the picture.
func (s *screen) wait(words ...string) string {
	s.t.Helper()
	shown := ""
	for range 300 {
		shown = s.run("capture-pane", "-p", "-t", "c")
		all := true
		for _, w := range words {
			all = all && strings.Contains(shown, w)
		}
		if all {
			return shown
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("the terminal never showed %q but:\n%s", words, shown)
	return ""
}

// TestConsoleInTerminal is a walk through the real program in a real terminal.
func TestConsoleInTerminal(t *testing.T) {
	state := t.TempDir()
	r := newRoom()
	sock := filepath.Join(state, "labswarm.sock")
	shut := r.open(t, sock)
	s := newScreen(t, state, 80, 24, "LC_ALL=C.UTF-8 TERM=xterm-256color")
	s.wait("lab1", "live", "A101", "a01", "42", "up", "!!", "job 118", "61 %", "? help", "q quit")
	s.keys("Right", "Right")
	s.wait(">a03", "input/output error")
	s.keys("Enter")
	s.wait("A101/a03", "FAILED", "esc back")
	s.keys("?")
	s.wait("Keys", "quit the console; jobs go on")
	s.keys("Escape")
	s.wait("A101/a03")
	s.keys("Escape")
	s.wait(">a03")

	// A change on the server shows by itself.
	r.mu.Lock()
	r.job.Slots = append([]api.Slot{}, r.job.Slots...)
	r.job.Slots[0].State = api.StateVerifying
	r.mu.Unlock()
	s.wait("vf")

	// The server goes away and comes back: the picture says so, and heals.
	shut()
	s.wait("STALE", "reconnecting")
	r.open(t, sock)
	s.wait("live")

	s.run("resize-window", "-t", "c", "-x", "40", "-y", "12")
	for i, l := range strings.Split(s.wait("lab1", "a01", "quit"), "\n") {
		if len([]rune(l)) > 40 {
			t.Errorf("line %d is wider than the terminal: %q", i, l)
		}
	}
	s.run("resize-window", "-t", "c", "-x", "80", "-y", "24")
	s.keys("q")
	if left := s.wait("exit=0", "echo"); strings.Contains(left, "-echo") || strings.Contains(left, "a01") {
		t.Errorf("the terminal is not as it was before:\n%s", left)
	}
}

// TestConsoleKinds: without colour there is no colour, without UTF-8 nothing but
// ASCII, and a terminal that cannot do it is told about the twin.
func TestConsoleKinds(t *testing.T) {
	state := t.TempDir()
	newRoom().open(t, filepath.Join(state, "labswarm.sock"))

	s := newScreen(t, state, 80, 24, "LC_ALL=C LANG=C TERM=xterm-256color NO_COLOR=1")
	shown := s.wait("a01", "!!", "61 %")
	for _, c := range shown {
		if c > 126 {
			t.Fatalf("%q is not ASCII:\n%s", c, shown)
		}
	}
	if styled := s.run("capture-pane", "-p", "-e", "-t", "c"); strings.Contains(styled, "\x1b[3") || strings.Contains(styled, "\x1b[4") {
		t.Errorf("colour in spite of NO_COLOR: %q", styled)
	}
	s.keys("C-c")
	s.wait("exit=0")

	s = newScreen(t, state, 80, 24, "LC_ALL=C.UTF-8 TERM=xterm-256color NO_COLOR=")
	s.wait("a01", "!!")
	if styled := s.run("capture-pane", "-p", "-e", "-t", "c"); !strings.Contains(styled, "\x1b[3") {
		t.Errorf("no colour at all: the check above cannot fail: %q", styled)
	}

	s = newScreen(t, state, 80, 24, "TERM=dumb")
	s.wait("cannot move the cursor", "exit=2")
}
