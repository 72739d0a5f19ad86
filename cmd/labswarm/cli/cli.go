// Package cli is labswarm's command line: one file a command. It parses flags,
// calls the part that does the work, and turns errors into sentences and exit
// codes. It decides nothing about deployments.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"labswarm/api/client"
	"labswarm/internal/version"
	"labswarm/server/config"
	"labswarm/tui/app"
)

// env is what every command gets.
type env struct {
	stateDir string
	json     bool
	quiet    bool
	plain    bool // sentences instead of pictures
	noColor  bool
	keepFree string // --keep-free of image commands
	remote   remote
	readOnly bool // the console asks the server for nothing but facts

	in  *os.File
	out io.Writer
	err io.Writer
}

// Main runs one command line and returns the exit code (docs/OPERATIONS.md).
func Main(ctx context.Context, args []string, in *os.File, out, errOut io.Writer) int {
	e := &env{in: in, out: out, err: errOut}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	e.handBack()
	if err == nil {
		return ExitOK
	}
	code := exitCode(ctx, err)
	e.complain(err, code)
	return code
}

func newRoot(e *env) *cobra.Command {
	state := os.Getenv("LABSWARM_STATE_DIR")
	if state == "" {
		state = fileStateDir()
	}
	if state == "" {
		state = config.DefaultStateDir
	}
	root := &cobra.Command{
		Use:   "labswarm",
		Short: "reimage classrooms over the LAN",
		Long: `labswarm reimages classrooms over the LAN: it answers the PCs' netboot, and each
PC takes the image from its neighbour, writes it, reads it back and reboots.

Without a command, on a terminal, it opens the console.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return e.console(cmd) },
	}
	root.Flags().BoolVar(&e.readOnly, "read-only", false, "a console that changes nothing, for a screen on the wall")
	f := root.PersistentFlags()
	f.StringVar(&e.stateDir, "state-dir", state, "folder of the server's state (or LABSWARM_STATE_DIR)")
	f.BoolVar(&e.json, "json", false, "print JSON")
	f.BoolVar(&e.quiet, "quiet", false, "no progress")
	f.BoolVar(&e.plain, "plain", os.Getenv("LABSWARM_ACCESSIBLE") == "1", "sentences, one a line, nothing drawn over: for screen readers (or LABSWARM_ACCESSIBLE=1)")
	f.BoolVar(&e.noColor, "no-color", false, "no colour (also: NO_COLOR)")
	e.remote.flags(root)
	// A closed terminal ends every command tidily, but not the server and the relay.
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Name() != "serve" && cmd.Name() != "seed" {
			ctx, cancel := context.WithCancelCause(cmd.Context())
			onHangup(func() { cancel(errors.New("the terminal was closed")) })
			cmd.SetContext(ctx)
		}
		return e.prepare(cmd)
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(newServe(e), newConfig(e), newImage(e), newRoom(e), newHost(e), newJob(e), newSchedule(e), newReport(e), newRelay(e), newSeed(e), newToken(e), newAudit(e), newDoctor(e), newState(e), newStatus(e), newEvents(e), newClassroom(e), newVersion(e), newMan(e))
	e.completions(root)
	return root
}

// console opens the room on a terminal; elsewhere it names its twin.
func (e *env) console(cmd *cobra.Command) error {
	if e.plain {
		return usage(errors.New("the console draws pictures; as sentences for a screen reader: `labswarm job watch --plain`, and every screen has its command (labswarm --help)"))
	}
	out, ok := e.out.(*os.File)
	if !ok || !isTerminal(out) || !isTerminal(e.in) {
		if err := cmd.Help(); err != nil {
			return err
		}
		return usage(errors.New("the console needs a terminal; in a pipe use `labswarm job watch`"))
	}
	if !canRedraw(out) {
		return usage(fmt.Errorf("open the console: terminal %q cannot move the cursor; `labswarm job watch` shows the same as lines of text, --json for programs", os.Getenv("TERM")))
	}
	c := e.client()
	defer c.Close()
	if _, err := c.Server(cmd.Context()); err != nil {
		return err
	}
	return app.Run(cmd.Context(), app.Options{Client: c, NoColor: e.noColor || os.Getenv("NO_COLOR") != "", Term: os.Getenv("TERM"), ReadOnly: e.readOnly})
}

func (e *env) client() *client.Client {
	if e.remote.client != nil {
		return client.NewRemote(*e.remote.client)
	}
	return client.New(filepath.Join(e.stateDir, "labswarm.sock"))
}

// printJSON writes v as indented JSON on standard output.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printf writes to standard output.
func (e *env) printf(format string, args ...any) error {
	_, err := io.WriteString(e.out, clean(fmt.Sprintf(format, args...)))
	return err
}

// hint writes a line for people on standard error.
func (e *env) hint(format string, args ...any) {
	_, _ = io.WriteString(e.err, clean(fmt.Sprintf(format+"\n", args...))) // a closed terminal is no reason to fail
}

// printLine writes v as JSON in one line, for commands that print many objects.
func (e *env) printLine(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "%s\n", raw)
	return err
}

// clean makes text safe to print: an error or a disk's model comes from a
// machine in the room and must not drive the admin's terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

// exact is cobra.ExactArgs with the exit code for wrong use.
func exact(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(fmt.Errorf("%s takes %d arguments, got %d; usage: %s", cmd.CommandPath(), n, len(args), cmd.UseLine()))
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		if err := cmd.Help(); err != nil {
			return err
		}
		if len(args) > 0 {
			return usage(fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath()))
		}
		return usage(fmt.Errorf("%s needs a command", cmd.CommandPath()))
	}}
	c.AddCommand(sub...)
	return c
}
