package httpboot

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// idleTime is how long a connection may rest between two requests.
	idleTime = 5 * time.Second
	// drainTime is how long a client may take no byte of what is still under way
	// before the connection is given up; a slow firmware may take much longer for
	// all of it. readTime is what it then gets to read it before the reset.
	drainTime = 10 * time.Second
	readTime  = 2 * time.Second
)

// listener hands out connections that leave no trace in our kernel.
//
// GRUB never closes the connection that host.cfg came over (`boot` ends GRUB
// first), and every boot of GRUB 2.12 begins with the same source port and the
// same sequence number (21550 and 346 were captured). A PC that restarts
// after its deployment then knocks at its own old connection: in FIN_WAIT or
// TIME_WAIT our kernel answers with an ACK of the old one, GRUB answers that
// instead of resetting it, and the boot stands still for up to 80 s. So the
// boot port ends every connection by a reset, once the client has had time to
// read: there is no state left that a new SYN could meet. Answers carry
// Content-Length, so no client needs our FIN.
type listener struct {
	net.Listener
	ctx   context.Context // its end cuts the waits short
	drain time.Duration   // drainTime
	wg    sync.WaitGroup  // connections on their way out
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		return &conn{TCPConn: tcp, l: l}, nil
	}
	return c, nil
}

type conn struct {
	*net.TCPConn
	l    *listener
	once sync.Once
}

// Close lets the client finish reading and then resets the connection, beside
// the caller.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = nil
		c.l.wg.Go(c.end)
	})
	return err
}

// end returns l.drain after the client took the last byte, at the latest, and
// readTime later.
func (c *conn) end() {
	left, since := c.unacknowledged(), time.Now()
	for left > 0 && time.Since(since) < c.l.drain && c.l.ctx.Err() == nil {
		select {
		case <-c.l.ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
		if now := c.unacknowledged(); now != left {
			left, since = now, time.Now()
		}
	}
	stop := context.AfterFunc(c.l.ctx, func() { _ = c.SetReadDeadline(time.Now()) }) // a closed connection is what we want
	defer stop()
	if c.SetReadDeadline(time.Now().Add(readTime)) == nil && c.l.ctx.Err() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.TCPConn, 64<<10)) // until the client ends it, or time is up
	}
	_ = c.SetLinger(0) // reset instead of FIN; the connection may be gone already
	_ = c.TCPConn.Close()
}

// unacknowledged is how many bytes that we sent the client still lacks; 0 when that
// cannot be told.
func (c *conn) unacknowledged() int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	left, ioErr := 0, error(nil)
	err = raw.Control(func(fd uintptr) { left, ioErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if errors.Join(err, ioErr) != nil {
		return 0
	}
	return left
}
