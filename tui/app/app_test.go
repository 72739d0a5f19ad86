package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/keymap"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

// TestMain also is the real program for the tests that need a real terminal:
// with a socket in the environment it runs the console.
func TestMain(m *testing.M) {
	if socket := os.Getenv("TUI_TEST_SOCKET"); socket != "" {
		c := client.New(socket)
		err := Run(context.Background(), Options{Client: c, NoColor: os.Getenv("TUI_TEST_MONO") != ""})
		c.Close()
		if err != nil {
			_, _ = io.WriteString(os.Stdout, err.Error()+"\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// console is a model without a terminal: messages in, frames out.
type console struct {
	*model
	t         *testing.T
	refreshed int
}

func newConsole(t *testing.T, src *client.Client, s *snapshot.Snapshot) *console {
	t.Helper()
	c := &console{t: t}
	c.model = newModel(t.Context(), src, func() { c.refreshed++ }, theme.New(false, true))
	c.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	s.Heard = time.Now()
	c.Update(pictureMsg{s})
	return c
}

// press sends keys and runs what they ask for, as the program would. It tells
// whether the program would end.
func (c *console) press(keys ...string) (quit bool) {
	c.t.Helper()
	for _, k := range keys {
		_, cmd := c.Update(keyPress(k))
		quit = c.run(cmd) || quit
	}
	return quit
}

func (c *console) run(cmd tea.Cmd) (quit bool) {
	if cmd == nil {
		return false
	}
	switch msg := cmd().(type) {
	case tea.QuitMsg:
		return true
	case readMsg, doneMsg:
		_, cmd = c.Update(msg)
		return c.run(cmd)
	}
	return false
}

func keyPress(k string) tea.KeyPressMsg {
	codes := map[string]tea.KeyPressMsg{
		"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}, "shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift},
		"left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
		"home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd}, "pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown}, "space": {Code: tea.KeySpace, Text: " "}, "backspace": {Code: tea.KeyBackspace},
	}
	if p, ok := codes[k]; ok {
		return p
	}
	if c, ok := strings.CutPrefix(k, "ctrl+"); ok && c != "" {
		return tea.KeyPressMsg{Code: rune(c[0]), Mod: tea.ModCtrl}
	}
	return tea.KeyPressMsg{Code: rune(k[0]), Text: k}
}

func (c *console) shows(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if !strings.Contains(c.frame, w) {
			c.t.Errorf("the screen does not show %q:\n%s", w, c.frame)
		}
	}
}

// TestKeysArriveAsBound: the names in the key map are those of bubbletea.
func TestKeysArriveAsBound(t *testing.T) {
	for _, b := range keymap.Default() {
		for _, k := range b.Keys {
			if got := keyPress(k).String(); got != k {
				t.Errorf("%s is bound to %q, bubbletea calls that key %q", b.ID, k, got)
			}
		}
	}
}

func TestWalkThroughTheScreens(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(40))
	cl := client.New(srv.Socket)
	t.Cleanup(cl.Close)
	c := newConsole(t, cl, tuitest.Picture(40))
	c.shows(">a01 00<", "[A101 40]", "live 0.")

	c.press("l", "l", "right", "right")
	c.shows(">a05 !!<", "FAILED")
	c.press("enter")
	c.shows("A101/a05", "COMMENCE committed", "code DW", "esc back")
	c.press("l")
	c.shows("A101/a06", "read back and equal", "COMMENCE committed")
	c.press("?")
	c.shows("Keys", "previous host of the room")
	c.press("?")
	c.shows("A101/a06")
	c.press("esc")
	c.shows(">a06 ok<")
	c.press("tab")
	c.shows("[A102 8]", ">b1  ..<", "no job: labswarm job create --image NAME --room A102")
	c.press("enter")
	c.shows("A102/b1", "in no job; never seen on the network")
	c.press("esc", "tab", "enter")
	c.shows("[B001 0]", "no hosts yet: labswarm host add NAME --room B001 --mac M", "enter: there is no host in this room")
	c.press("shift+tab", "shift+tab", "G")
	c.shows(">a40 wk<")
	if n := srv.Gets(api.RouteJobs + "/118"); n != 2 {
		t.Errorf("the timeline was read %d times, want once for each of the two hosts with a job", n)
	}
	c.press("ctrl+r")
	if c.refreshed != 1 {
		t.Errorf("ctrl+r asked %d times for everything", c.refreshed)
	}
	for _, k := range []string{"q", "ctrl+c"} {
		if !c.press(k) {
			t.Errorf("%s does not quit", k)
		}
	}
}

// TestQuitWorksOnEveryScreen: also in help and host.
func TestQuitWorksOnEveryScreen(t *testing.T) {
	for _, way := range [][]string{{}, {"?"}, {"enter"}, {"enter", "?"}} {
		c := newConsole(t, client.New("/nonexistent"), tuitest.Picture(3))
		c.press(way...)
		if !c.press("q") {
			t.Errorf("after %v: q does not quit", way)
		}
	}
}

// TestTimelineFollowsTheState: a new state is a new timeline; a lost answer is
// said, and asked for again a second later, not at once.
func TestTimelineFollowsTheState(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(3))
	cl := client.New(srv.Socket)
	t.Cleanup(cl.Close)
	c := newConsole(t, cl, tuitest.Picture(3))
	c.press("enter")
	c.shows("A101/a01", "COMMENCE committed")

	srv.Stop()
	f := tuitest.Facts(3)
	f.Jobs[0].Slots[0].State = api.StateVerifying
	s := snapshot.Build(f)
	s.Full, s.Link, s.Heard = true, snapshot.Live, time.Now()
	_, cmd := c.Update(pictureMsg{s})
	c.run(cmd)
	c.shows("VERIFYING", "no timeline: reach the server at "+srv.Socket[:12])
	if c.top().busy {
		t.Error("asked again at once")
	}
	srv.Start()
	c.Update(secondMsg{})
	if !c.top().busy {
		t.Fatal("not asked again after a second")
	}
	c.top().busy, c.top().query = false, ""
	_, cmd = c.Update(pictureMsg{s})
	c.run(cmd)
	c.shows("COMMENCE committed")
}

// TestIdleDrawsTheAgeOnly: pictures without news draw nothing.
func TestIdleDrawsTheAgeOnly(t *testing.T) {
	s := tuitest.Picture(40)
	c := newConsole(t, client.New("/nonexistent"), s)
	before := c.frames
	for range 20 {
		quiet := *s
		quiet.Heard = time.Now()
		c.Update(pictureMsg{&quiet})
		c.Update(tea.PasteMsg{Content: "q"})
	}
	if c.frames != before {
		t.Errorf("%d frames drawn for nothing", c.frames-before)
	}
	c.Update(secondMsg{})
	if c.frames != before+1 {
		t.Errorf("%d frames for one second", c.frames-before)
	}
	lost := *s
	lost.Link = snapshot.Lost
	c.Update(pictureMsg{&lost})
	c.shows("STALE")
}

// TestPanicEndsInOrder: a fault in a screen quits, so that the terminal is
// restored, and is reported with the way around.
func TestPanicEndsInOrder(t *testing.T) {
	c := newConsole(t, client.New("/nonexistent"), tuitest.Picture(3))
	c.draw = func(*model) string { panic("index out of range") }
	_, cmd := c.Update(keyPress("?"))
	if !c.run(cmd) || c.crash == nil {
		t.Fatal("a panic does not quit")
	}
	for _, want := range []string{"index out of range", "labswarm job watch"} {
		if !strings.Contains(c.crash.Error(), want) {
			t.Errorf("%q does not say %q", c.crash, want)
		}
	}
	if !strings.Contains(string(c.crash.Stack), "TestPanicEndsInOrder") {
		t.Error("the stack does not lead to the fault")
	}
}

func TestDumbTerminal(t *testing.T) {
	err := Run(t.Context(), Options{Client: client.New("/nonexistent"), Term: "dumb"})
	var te *TerminalError
	if !errors.As(err, &te) || !strings.Contains(err.Error(), "labswarm job watch") {
		t.Errorf("Run on a dumb terminal: %v", err)
	}
}

func TestUTF8Locale(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"LANG": "en_US.UTF-8"}, true},
		{map[string]string{"LANG": "C.utf8"}, true},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "C"}, false},
		{map[string]string{"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, true},
	} {
		if got := utf8Locale(func(k string) string { return tt.env[k] }); got != tt.want {
			t.Errorf("utf8Locale(%v) = %v", tt.env, got)
		}
	}
}

// TestRunEndsCleanly: by key and from outside, with and without a server;
// goleak sees that nothing is left.
func TestRunEndsCleanly(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(3))
	for _, socket := range []string{srv.Socket, "/nonexistent"} {
		in, keys := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cl := client.New(socket)
		go func() {
			time.Sleep(300 * time.Millisecond)
			_, _ = keys.Write([]byte("q")) // the console may have ended
			_ = keys.Close()
		}()
		if err := Run(ctx, Options{Client: cl, In: in, Out: &bytes.Buffer{}, Term: "xterm"}); err != nil || ctx.Err() != nil {
			t.Errorf("%s: quit by key: %v, %v", socket, err, ctx.Err())
		}
		cancel()
		_ = in.Close()

		ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		in, keys = io.Pipe()
		go func() { <-ctx.Done(); _ = keys.Close() }()
		if err := Run(ctx, Options{Client: cl, In: in, Out: &bytes.Buffer{}, Term: "xterm"}); err != nil {
			t.Errorf("%s: ended from outside: %v", socket, err)
		}
		cancel()
		_ = in.Close()
		cl.Close()
	}
}

func (c *console) paste(text string) {
	c.t.Helper()
	_, cmd := c.Update(tea.PasteMsg{Content: text})
	c.run(cmd)
}
