// Package app is the console: it runs the terminal program, feeds it with
// pictures of the server, and turns keys into what the screens show.
//
// It decides nothing about jobs or hosts and writes nothing to the server.
// cmd/labswarm calls Run.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/sync/errgroup"

	"labswarm/api/client"
	"labswarm/tui/feed"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// Options says how the console talks to its terminal and to the server.
type Options struct {
	Client   *client.Client
	ReadOnly bool      // read-only: the server is asked for nothing but facts
	In       io.Reader // nil = standard input
	Out      io.Writer // nil = standard output
	NoColor  bool      // also set by a NO_COLOR that is not empty
	ASCII    bool      // also set by a locale that is not UTF-8, and on TERM=linux
	Term     string    // "" = $TERM
}

// TerminalError means that the console cannot be drawn here. Nothing was
// changed on the terminal.
type TerminalError struct{ Term, Why string }

// Error names the way that works on every terminal.
func (e *TerminalError) Error() string {
	return fmt.Sprintf("open the console on terminal %q: %s; `labswarm job watch` shows the same as lines of text, --json for programs", e.Term, e.Why)
}

// PanicError means that the console itself is at fault. The terminal has been
// restored; jobs are not touched.
type PanicError struct {
	Value any
	Stack []byte
}

// Error names the way around.
func (e *PanicError) Error() string {
	return fmt.Sprintf("draw the console: internal error: %v; jobs go on, `labswarm job watch` shows them", e.Value)
}

// Run shows the console until the person quits or ctx ends; then it returns
// nil. Its goroutines end before it does.
func Run(ctx context.Context, o Options) error {
	if o.Term == "" {
		o.Term = os.Getenv("TERM")
	}
	if err := fits(o); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var p *tea.Program
	f := feed.New(o.Client, func(s *snapshot.Snapshot) { p.Send(pictureMsg{s}) })
	m := newModel(ctx, o.Client, f.Refresh, o.theme())
	m.readOnly = o.ReadOnly
	p = tea.NewProgram(m, o.program(ctx)...)

	g, feedCtx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.Run(feedCtx) })
	g.Go(func() error { everySecond(feedCtx, p); return nil })
	_, err := p.Run()
	outside := ctx.Err() != nil // before this function ends it itself
	cancel()
	if ferr := g.Wait(); err == nil {
		err = ferr
	}
	switch {
	case m.crash != nil:
		return m.crash
	case err == nil, outside, errors.Is(err, tea.ErrInterrupted):
		return nil
	}
	return fmt.Errorf("run the console: %w", err)
}

// everySecond makes the age of the data grow on the screen, until ctx ends.
func everySecond(ctx context.Context, p *tea.Program) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.Send(secondMsg{})
		}
	}
}

// fits refuses terminals that cannot move the cursor.
func fits(o Options) error {
	if o.Term == "dumb" || o.Term == "" {
		return &TerminalError{o.Term, "it cannot move the cursor"}
	}
	if o.Out != nil {
		return nil
	}
	if st, err := os.Stdout.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return &TerminalError{o.Term, "the output is not a terminal"}
	}
	return nil
}

func (o Options) theme() *theme.Theme {
	return theme.New(!o.noColor(), o.ASCII || o.Term == "linux" || !utf8Locale(os.Getenv))
}

func (o Options) noColor() bool { return o.NoColor || os.Getenv("NO_COLOR") != "" }

// utf8Locale reads the locale of characters in the order of POSIX (XBD 8.2).
func utf8Locale(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := env(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func (o Options) program(ctx context.Context) []tea.ProgramOption {
	env := append(os.Environ(), "TERM="+o.Term)
	opts := []tea.ProgramOption{tea.WithContext(ctx), tea.WithEnvironment(env), tea.WithFPS(20)}
	if o.In != nil {
		opts = append(opts, tea.WithInput(o.In))
	}
	if o.Out != nil {
		opts = append(opts, tea.WithOutput(o.Out))
	}
	if o.noColor() {
		opts = append(opts, tea.WithColorProfile(colorprofile.ASCII))
	}
	return opts
}
