package testvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// SerialPath is the log of everything the machine said on its serial port, over
// all its starts.
func (v *VM) SerialPath() string { return filepath.Join(v.Dir, serialLog) }

// SerialLen is the present length of the serial log, in bytes.
func (v *VM) SerialLen() int64 {
	st, err := os.Stat(v.SerialPath())
	if err != nil {
		return 0 // not written yet
	}
	return st.Size()
}

// LastReset is the length the serial log had at the last reset or start: what
// follows was said since then.
func (v *VM) LastReset() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reset
}

// maxSerial bounds what is read of a log in one go; a machine says some 100 KiB.
const maxSerial = 16 << 20

// Serial returns the serial log from byte offset from on.
func (v *VM) Serial(from int64) ([]byte, error) {
	f, err := os.Open(v.SerialPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read serial log of %s: %w", v.Name, err)
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxSerial))
	if err != nil {
		return nil, fmt.Errorf("read serial log of %s: %w", v.Name, err)
	}
	return b, nil
}

// WaitSerial waits until re matches in the serial log from byte offset from on, and
// returns the match. It fails when ctx ends or the machine does; the error carries
// the last lines seen.
func (v *VM) WaitSerial(ctx context.Context, re *regexp.Regexp, from int64) (string, error) {
	done := v.Done()
	for ended := false; ; {
		b, err := v.Serial(from)
		if err != nil {
			return "", err
		}
		if m := re.Find(b); m != nil {
			return string(m), nil
		}
		if ended {
			return "", fmt.Errorf("terminal %s ended without saying %q; its last lines:\n%s", v.Name, re, tail(b, 12))
		}
		select {
		case <-done:
			ended = true // one more look at the log
		case <-ctx.Done():
			return "", fmt.Errorf("terminal %s did not say %q: %w; its last lines:\n%s", v.Name, re, ctx.Err(), tail(b, 12))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Tail returns the last n lines of the serial log, without control sequences.
func (v *VM) Tail(n int) string {
	b, err := v.Serial(max(0, v.SerialLen()-64<<10))
	if err != nil {
		return err.Error()
	}
	return tail(b, n)
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?=]*[a-zA-Z]|[\x00-\x08\x0b-\x1f]`)

func tail(b []byte, n int) string {
	var lines []string
	for l := range strings.SplitSeq(escapes.ReplaceAllString(string(b), ""), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Type sends text to the serial port, as if typed there.
func (v *VM) Type(ctx context.Context, text string) error {
	conn, err := v.dial(ctx, serialSock)
	if err != nil {
		return fmt.Errorf("type on terminal %s: %w", v.Name, err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return errors.Join(fmt.Errorf("type on terminal %s: %w", v.Name, err), conn.Close())
	}
	time.Sleep(100 * time.Millisecond) // QEMU drops what it has not read when we hang up
	return conn.Close()
}
