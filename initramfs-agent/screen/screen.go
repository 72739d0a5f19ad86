package screen

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	repaint = 500 * time.Millisecond // at most twice a second: the screen must not cost write throughput
	refresh = 5 * time.Second        // whole page, over whatever the kernel has printed
)

// Screen draws a View. Its methods are safe for concurrent use.
type Screen struct {
	vt      *os.File // nil: no virtual console
	serials []*os.File
	lines   chan string
	size    Size          // of vt
	now     chan struct{} // paint at once; nil: a Screen that nobody draws

	mu    sync.Mutex
	view  View
	moved time.Time // when State or Done changed last
}

// New opens the consoles below dev: tty1, and the serial ones the kernel
// writes to. Consoles that cannot be opened are done without.
func New(dev, sys string) *Screen {
	s := &Screen{lines: make(chan string, 64), now: make(chan struct{}, 1), size: VGA}
	if vt, err := openConsole(filepath.Join(dev, "tty1")); err == nil {
		s.vt = vt
		if ws, err := unix.IoctlGetWinsize(int(vt.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col >= 20 && ws.Row >= 10 {
			s.size = Size{int(ws.Col), int(ws.Row)}
		}
		// No cursor, no blanking after ten minutes (console_codes(4)).
		s.put(vt, "\x1b[?25l\x1b[9;0]\x1b[2J")
	}
	active, err := os.ReadFile(filepath.Join(sys, "class", "tty", "console", "active"))
	if err != nil {
		return s
	}
	for _, name := range strings.Fields(string(active)) {
		if strings.HasPrefix(name, "ttyS") || strings.HasPrefix(name, "hvc") || strings.HasPrefix(name, "ttyAMA") {
			if f, err := openConsole(filepath.Join(dev, name)); err == nil {
				s.serials = append(s.serials, f)
			}
		}
	}
	return s
}

// Plain returns a screen that writes lines to one open file, for an agent
// beside a running system.
func Plain(out *os.File) *Screen {
	return &Screen{lines: make(chan string, 64), now: make(chan struct{}, 1), serials: []*os.File{out}}
}

// Lines is where others put lines for the serial consoles. It is bounded; a
// sender that finds it full drops the line.
func (s *Screen) Lines() chan<- string { return s.lines }

// Update changes what is shown. The sentence about switching off is painted at
// once, not with the next half second: what it warns of begins now.
func (s *Screen) Update(f func(*View)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.view
	f(&s.view)
	if s.moved.IsZero() || s.view.State != old.State || s.view.Done != old.Done {
		s.moved = time.Now()
	}
	if s.view.Advice() != old.Advice() {
		select {
		case s.now <- struct{}{}:
		default:
		}
	}
}

// View is what is shown now.
func (s *Screen) View() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view
	if !s.moved.IsZero() {
		v.Idle = time.Since(s.moved)
	}
	return v
}

// Run draws until ctx ends.
func (s *Screen) Run(ctx context.Context) error {
	tick := time.NewTicker(repaint)
	defer tick.Stop()
	var page, mark string
	painted, said := time.Time{}, time.Time{}
	for {
		select {
		case <-ctx.Done():
			s.serial(s.View().Line())
			return nil
		case l := <-s.lines:
			s.serial(l)
			continue
		case <-s.now:
		case <-tick.C:
		}
		v := s.View()
		if p := strings.Join(v.Page(s.size), "\x1b[K\n"); s.vt != nil && (p != page || time.Since(painted) > refresh) {
			s.put(s.vt, "\x1b[H"+p+"\x1b[J")
			page, painted = p, time.Now()
		}
		// A serial line for each change of state and each tenth, and one a
		// minute as a sign of life.
		if m := fmt.Sprint(v.State, v.Percent()/10, v.Problem, v.Committed, v.Verified, v.EnrolCode, v.Bound, v.waiting(&english) != ""); m != mark || time.Since(said) > time.Minute {
			s.serial(v.Line())
			mark, said = m, time.Now()
		}
	}
}

func (s *Screen) serial(line string) {
	for _, f := range s.serials {
		s.put(f, "labswarm: "+line+"\r\n")
	}
}

// put writes to a console; one that has gone away is nobody's concern.
func (s *Screen) put(f *os.File, text string) { _, _ = f.WriteString(text) }

// openConsole opens a character device, and nothing else, for writing.
func openConsole(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode()&os.ModeCharDevice == 0 {
		return nil, fmt.Errorf("open console %s: not a character device", path)
	}
	return os.OpenFile(path, os.O_WRONLY, 0)
}
