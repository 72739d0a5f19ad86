package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// helper is a program of another Debian package.
type helper struct{ name, pkg string }

var (
	qemuImg  = helper{"qemu-img", "qemu-utils"}
	restorer = helper{"partclone.restore", "partclone"}
	sfdisk   = helper{"sfdisk", "fdisk"}
	prlimit  = helper{"prlimit", "util-linux"}
	setpriv  = helper{"setpriv", "util-linux"}
)

// find returns the path of the program. what is for the message.
func (h helper) find(what string) (string, error) {
	if p, err := exec.LookPath(h.name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} { // not in the PATH of everybody
		if p, err := exec.LookPath(filepath.Join(dir, h.name)); err == nil {
			return p, nil
		}
	}
	return "", &MissingError{For: what, Program: h.name, Package: h.pkg}
}

const (
	nobody        = 65534    // uid and gid of Debian's nobody and nogroup
	childMemory   = 2 << 30  // bytes of address space
	childFiles    = 64       // descriptors
	childTail     = 4 << 10  // bytes of a program's messages that are kept
	maxChildText  = 16 << 20 // bytes of JSON that are read from a program
	afterKill     = 5 * time.Second
	watchInterval = 200 * time.Millisecond
)

// child is one run of a helper: without root's rights, without a way to get them, under limits, in a group of its own.
type child struct {
	helper
	what  string // for messages: what is done with it
	args  []string
	stdin io.Reader
	files []*os.File // descriptors 3 and up
	fsize int64      // longest file it may write, in bytes

	out  []byte // standard output, when there was no error; at most maxChildText bytes
	said string // the end of standard error
}

// run runs the program to its end. It is killed when ctx ends or room does.
func (w *work) run(ctx context.Context, c *child) error {
	path, err := c.find(c.what)
	if err != nil {
		return err
	}
	limiter, err := prlimit.find(c.what)
	if err != nil {
		return err
	}
	dropper, err := setpriv.find(c.what)
	if err != nil {
		return err
	}
	args := []string{"--core=0", fmt.Sprintf("--as=%d", childMemory), fmt.Sprintf("--nofile=%d", childFiles), fmt.Sprintf("--fsize=%d", c.fsize),
		"--", dropper, "--no-new-privs"}
	if os.Geteuid() == 0 {
		id := strconv.Itoa(nobody)
		args = append(args, "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
	}
	args = append(append(args, "--", path), c.args...)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, limiter, args...)
	cmd.Dir, cmd.Env = "/", []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=dumb"}
	out, said := &capped{max: maxChildText}, &tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = c.stdin, out, said, c.files
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to pass on
	cmd.WaitDelay = afterKill
	watched := w.watch(ctx, cancel)
	err = cmd.Run()
	cancel(nil)
	<-watched
	c.out, c.said = out.b, said.text()
	switch {
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	case w.room() != nil:
		return w.room()
	case err != nil:
		return fmt.Errorf("%s with %s: %w: %s", c.what, c.name, err, c.said)
	}
	return nil
}

// watch asks for room until ctx ends, and ends it when there is none.
func (w *work) watch(ctx context.Context, cancel context.CancelCauseFunc) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := w.room(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return done
}

// give lets a program without root's rights write the work file, which nothing but its descriptor leads to.
func (w *work) give() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := w.Chown(nobody, nobody); err != nil {
		return fmt.Errorf("hand over the work file: %w", err)
	}
	return nil
}

// runNBD runs c with a socket as descriptor 3 behind which it finds the file, read-only; further files come after it.
func (w *work) runNBD(ctx context.Context, c *child, file io.ReaderAt, size int64) (err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "nbd client")
	ours := os.NewFile(uintptr(pair[0]), "nbd server")
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return errors.Join(fmt.Errorf("make a socket: %w", err), theirs.Close())
	}
	served := make(chan error, 1)
	go func() { served <- serveNBD(conn, file, size, w.progress) }()
	c.files = append([]*os.File{theirs}, c.files...)
	err = w.run(ctx, c)
	// The program is gone; what the server says of a socket closed under it is no news.
	_ = theirs.Close()
	_ = conn.Close()
	<-served
	return err
}

// capped keeps the first max bytes and fails beyond.
type capped struct {
	b   []byte
	max int
}

func (c *capped) Write(b []byte) (int, error) {
	if len(c.b)+len(b) > c.max {
		return 0, fmt.Errorf("more than %d bytes of output", c.max)
	}
	c.b = append(c.b, b...)
	return len(b), nil
}

// tail keeps the last childTail bytes.
type tail struct{ b []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	if len(t.b) > childTail {
		t.b = bytes.Clone(t.b[len(t.b)-childTail:])
	}
	return len(b), nil
}

// text returns the last lines that say something, as one.
func (t *tail) text() string {
	var lines []string
	for line := range strings.FieldsFuncSeq(string(t.b), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
