package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/e2e/classroom"
	"labswarm/images/library"
)

// Exit codes; docs/OPERATIONS.md lists them.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitPartial     = 3
	ExitUnreachable = 10
	ExitConflict    = 11
	ExitNotAllowed  = 12
	ExitConfig      = 78
	ExitInterrupted = 130
)

// exitCodes says what they mean, for the manual page.
func exitCodes() []struct {
	code int
	text string
} {
	return []struct {
		code int
		text string
	}{
		{ExitOK, "done"}, {ExitFailed, "failed"}, {ExitUsage, "wrong use of the command line; nothing was done"},
		{ExitPartial, "some hosts of a job are not done"}, {ExitUnreachable, "no server answers"},
		{ExitConflict, "it contradicts what the server has, or something is locked"}, {ExitNotAllowed, "not allowed"},
		{ExitConfig, "bad configuration of the server"}, {ExitInterrupted, "interrupted"},
	}
}

// usageError is wrong use of the command line.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

func usage(err error) error { return &usageError{err} }

// codeError ends the program with a code of its own; err may be nil when
// everything was said already.
type codeError struct {
	code int
	err  error
}

func (c *codeError) Error() string {
	if c.err == nil {
		return ""
	}
	return c.err.Error()
}
func (c *codeError) Unwrap() error { return c.err }

// exitCode maps an error to the documented code.
func exitCode(ctx context.Context, err error) int {
	var (
		code    *codeError
		use     *usageError
		away    *client.UnreachableError
		problem *api.Problem
		exit    interface{ ExitCode() int }
		options *classroom.OptionError
		wrong   *client.WrongKeyError
	)
	switch {
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &use), errors.As(err, &options), strings.HasPrefix(err.Error(), "unknown command"):
		return ExitUsage
	case ctx.Err() != nil, errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.As(err, &wrong):
		return ExitNotAllowed
	case errors.As(err, &away):
		if errors.Is(err, fs.ErrPermission) {
			return ExitNotAllowed
		}
		return ExitUnreachable
	case errors.As(err, &problem):
		return problemCode(problem)
	case errors.As(err, &exit):
		return exit.ExitCode()
	case errors.Is(err, library.ErrUnchanged):
		return ExitConflict
	case errors.Is(err, fs.ErrPermission):
		return ExitNotAllowed
	}
	return ExitFailed
}

func problemCode(p *api.Problem) int {
	switch p.Code {
	case api.CodeConflict, api.CodeHostBusy, api.CodeIdempotency:
		return ExitConflict
	case api.CodeUsage, api.CodeConfirm:
		return ExitUsage
	}
	switch p.Status {
	case 401, 403:
		return ExitNotAllowed
	case 409, 412, 423:
		return ExitConflict
	case 400, 422:
		return ExitUsage
	}
	return ExitFailed
}

// complain says what went wrong on standard error.
func (e *env) complain(err error, code int) {
	text := err.Error()
	if e.json {
		out := struct {
			Type  string `json:"message_type"`
			Code  int    `json:"code"`
			Error string `json:"error"`
		}{"exit_error", code, text}
		if raw, jerr := json.Marshal(out); jerr == nil {
			_, _ = fmt.Fprintf(e.err, "%s\n", raw) // nowhere left to complain to
			return
		}
	}
	if text != "" {
		e.hint("labswarm: %s", text)
	}
}

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
