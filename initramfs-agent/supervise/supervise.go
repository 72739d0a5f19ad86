// Package supervise is what process 1 has to do besides its work: reap what
// dies, ignore keys, and run the worker again when it panics. No path ends at
// a prompt or at a dead screen.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// PanicError is a worker that crashed.
type PanicError struct {
	Value any
	Stack string
}

// Error is the first line of the crash; the stack goes to the log.
func (e *PanicError) Error() string { return fmt.Sprintf("the agent crashed: %v", e.Value) }

// Protect calls f and turns a panic into a *PanicError. Every goroutine of the
// agent runs under it: one that panics alone would end process 1 and with it
// the machine.
func Protect(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: string(debug.Stack())}
		}
	}()
	return f()
}

// Run calls worker until it ends without a panic, at most 1+restarts times,
// and returns its last error. crashed is told of every panic.
func Run(ctx context.Context, restarts int, worker func(context.Context) error, crashed func(*PanicError)) error {
	for n := 0; ; n++ {
		err := Protect(func() error { return worker(ctx) })
		var p *PanicError
		if !errors.As(err, &p) {
			return err
		}
		crashed(p)
		if n >= restarts || ctx.Err() != nil {
			return err
		}
	}
}

// Init takes over the duties of process 1 until ctx ends: children are reaped,
// Ctrl-Alt-Del does nothing. It does nothing in any other process.
func Init(ctx context.Context) error {
	if os.Getpid() != 1 {
		return nil
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		return fmt.Errorf("switch off Ctrl-Alt-Del: %w", err)
	}
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, unix.SIGCHLD, unix.SIGINT, unix.SIGHUP, unix.SIGTERM)
	defer signal.Stop(ch)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ch:
			reap()
		}
	}
}

func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}
