//go:build integration

package app

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/internal/testreq"
	"labswarm/tui/snapshot"
	"labswarm/tui/tuitest"
)

// pane is a terminal of tmux with a shell in it; the server of tmux is the
// test's own.
type pane struct {
	t      *testing.T
	tmux   string
	socket string
}

func newPane(t *testing.T, w, h int) *pane {
	t.Helper()
	dir, err := os.MkdirTemp("", "pane") //nolint:usetesting // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	p := &pane{t: t, tmux: testreq.Tool(t, "tmux", "tmux"), socket: filepath.Join(dir, "tmux.sock")}
	t.Cleanup(func() {
		// The test's context is over by now.
		_ = exec.CommandContext(context.Background(), p.tmux, "-S", p.socket, "kill-server").Run() // gone already is fine
		_ = os.RemoveAll(dir)                                                                      // a folder in the temporary folder
	})
	p.run("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(w), "-y", fmt.Sprint(h), "env PS1='$ ' ENV= sh -i")
	p.await("$")
	return p
}

func (p *pane) run(args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.tmux, append([]string{"-u", "-S", p.socket}, args...)...)
	cmd.Env = append(os.Environ(), "TMUX=", "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("tmux %v: %v: %s", args, err, errs.String())
	}
	return string(out)
}

// start runs the console in the shell.
func (p *pane) start(env string, srv *tuitest.Server) {
	p.t.Helper()
	p.line(env + " TUI_TEST_SOCKET=" + srv.Socket + " " + os.Args[0])
}

// line types a line into the shell.
func (p *pane) line(text string) { p.t.Helper(); p.run("send-keys", "-l", text); p.keys("Enter") }

func (p *pane) keys(names ...string) {
	p.t.Helper()
	for _, n := range names {
		p.run("send-keys", n)
	}
}

func (p *pane) screen() string { p.t.Helper(); return p.run("capture-pane", "-p") }

// await returns the screen once it holds all texts.
func (p *pane) await(texts ...string) string {
	p.t.Helper()
	for limit := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s, all := p.screen(), true
		for _, w := range texts {
			all = all && strings.Contains(s, w)
		}
		if all {
			return s
		}
		if time.Now().After(limit) {
			p.t.Fatalf("the terminal does not show %q:\n%s", texts, s)
		}
	}
}

// awaitShell waits for the shell after the console, and for a terminal that is
// as it was before: own screen, echo, cursor, line ends.
func (p *pane) awaitShell() {
	p.t.Helper()
	for limit := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		cmd := strings.TrimSpace(p.run("display-message", "-p", "#{pane_current_command}"))
		if cmd == "sh" || cmd == "dash" {
			break
		}
		if time.Now().After(limit) {
			p.t.Fatalf("%s still runs:\n%s", cmd, p.screen())
		}
	}
	p.line("stty -a | tr ';' '\\n' | grep -cE '(^| )-(icanon|echo|opost)( |$)'; echo done-$((40+2))")
	s := p.await("done-42")
	if strings.Contains(s, "labswarm  lab1") {
		p.t.Errorf("the console's screen is still there:\n%s", s)
	}
	if !strings.Contains(s, "\n0\ndone-42") {
		p.t.Errorf("the terminal was not restored:\n%s", s)
	}
	if got := strings.TrimSpace(p.run("display-message", "-p", "#{alternate_on} #{cursor_flag}")); got != "0 1" {
		p.t.Errorf("alternate screen and cursor are %q, want \"0 1\"", got)
	}
}

// TestRealTerminal drives the real program with real keys.
func TestRealTerminal(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(40))
	p := newPane(t, 80, 24)
	p.start("TERM=xterm-256color LC_ALL=C.UTF-8", srv)
	p.await("labswarm  lab1  live", ">a01 00<", "[A101 40]", "█", "? help   q quit")
	p.keys("l", "Down", "k", "Right", "Right", "Right")
	p.await(">a05 !!<", "code DW")
	p.keys("Enter")
	p.await("A101/a05", "COMMENCE committed")
	p.keys("?")
	p.await("scroll up")
	p.keys("Escape")
	p.await("A101/a05")
	p.keys("Escape")
	p.await(">a05 !!<")
	p.keys("Tab")
	p.await("[A102 8]")
	p.keys("BTab")
	p.await("[A101 40]")

	srv.Change(func(f *snapshot.Facts) { f.Jobs[0].Percent = 77 })
	p.await("77 %")
	srv.Stop()
	p.await("STALE", "reconnecting", "77 %", "(412 MiB/s)")
	srv.Change(func(f *snapshot.Facts) { f.Jobs[0].Percent = 88 })
	srv.Start()
	p.keys("C-r")
	p.await("live", "88 %")

	p.run("resize-window", "-x", "40", "-y", "12")
	p.await(">a05  !! DW write", "118 [")
	p.run("resize-window", "-x", "30", "-y", "12")
	p.await("terminal too small")
	p.run("resize-window", "-x", "10", "-y", "5")
	p.await("terminal ~")
	p.run("resize-window", "-x", "120", "-y", "40")
	p.await(">a01 00<  60.0 MiB/s")

	// Resized while frames are on their way: nothing of a wider or higher frame stays.
	for i := range 12 {
		srv.Change(func(f *snapshot.Facts) { f.Jobs[0].Percent = float64(60 + i) })
		p.run("resize-window", "-x", fmt.Sprint(60+7*(i%5)), "-y", fmt.Sprint(14+5*(i%3)))
		p.keys("l", "2", "1")
	}
	p.run("resize-window", "-x", "80", "-y", "24")
	srv.Change(func(f *snapshot.Facts) { f.Jobs[0].Percent = 93 })
	if s := p.await("93 %", "? help   q quit"); strings.Count(s, "labswarm  lab1") != 1 || strings.Count(s, "q quit") != 1 {
		t.Errorf("remains of other sizes:\n%s", s)
	}
	p.keys("q")
	p.awaitShell()
}

// TestRealTerminals: each kind of terminal gets what it can show.
func TestRealTerminals(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(3))
	for _, tt := range []struct {
		name, env, want string
		ascii, colour   bool
	}{
		{"colour", "TERM=xterm-256color LC_ALL=C.UTF-8", "█", false, true},
		{"no colour", "TERM=xterm-256color LC_ALL=C.UTF-8 NO_COLOR=1", "█", false, false},
		{"linux console", "TERM=linux LC_ALL=C.UTF-8", "[####", true, true},
		{"no UTF-8", "TERM=xterm LC_ALL=C", "[####", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPane(t, 80, 24)
			p.start(tt.env, srv)
			s := p.await(">a01 00<", tt.want)
			for _, r := range s {
				if tt.ascii && r > 0x7e {
					t.Errorf("character %U on a terminal without it:\n%s", r, s)
					break
				}
			}
			raw := p.run("capture-pane", "-p", "-e")
			if got := strings.Contains(raw, "\x1b[38") || strings.Contains(raw, "\x1b[3") || strings.Contains(raw, "\x1b[9"); got != tt.colour {
				t.Errorf("colour is %v, want %v: %q", got, tt.colour, raw)
			}
			p.keys("C-c")
			p.awaitShell()
		})
	}
}

// TestDumbTerminalRefused: a terminal without a cursor gets a sentence.
func TestDumbTerminalRefused(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(3))
	p := newPane(t, 120, 24)
	p.start("TERM=dumb", srv)
	p.await("labswarm job watch")
	p.awaitShell()
}

// TestKilledByTerm: also a signal leaves a usable terminal.
func TestKilledByTerm(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(3))
	p := newPane(t, 80, 24)
	pid := filepath.Join(t.TempDir(), "pid")
	p.line("TERM=xterm LC_ALL=C TUI_TEST_SOCKET=" + srv.Socket + " sh -c 'echo $$ >" + pid + "; exec " + os.Args[0] + "'")
	p.await(">a01 00<")
	raw, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "kill", "-TERM", strings.TrimSpace(string(raw))).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	p.awaitShell()
}
