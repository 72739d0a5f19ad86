package httpboot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kernelStates lists the states of all sockets whose local port is port, the
// listener left out (/proc/net/tcp, column st).
func kernelStates(t *testing.T, port int) []string {
	t.Helper()
	raw, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] != "0A" {
			out = append(out, f[3])
		}
	}
	return out
}

// serveOn runs an http.Server on l until the test ends.
func serveOn(t *testing.T, l net.Listener) {
	t.Helper()
	srv := &http.Server{IdleTimeout: 50 * time.Millisecond, ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "host.cfg") })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
}

// getAndStay fetches one answer and leaves the connection as GRUB does: open.
func getAndStay(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "GET /host.cfg HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != "host.cfg" {
		t.Fatalf("body %q, %v", body, err)
	}
	return c
}

// TestNoTraceInTheKernel: a client that never closes meets a reset, and no
// socket of the connection is left that the next boot's SYN could hit.
func TestNoTraceInTheKernel(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &listener{Listener: ln, ctx: ctx, drain: drainTime}
	serveOn(t, l)
	c := getAndStay(t, ln.Addr().String())
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the idle connection ended with %v; want a reset", err)
	}
	if got := kernelStates(t, ln.Addr().(*net.TCPAddr).Port); len(got) > 0 {
		t.Errorf("sockets left in states %v; want none", got)
	}
	cancel()
	l.wg.Wait()
}

// TestPlainServerLeavesTraces is the negative control: without the listener
// the kernel keeps the old connection.
func TestPlainServerLeavesTraces(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln)
	c := getAndStay(t, ln.Addr().String())
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection ended with %v; want FIN", err)
	}
	if got := kernelStates(t, ln.Addr().(*net.TCPAddr).Port); len(got) == 0 {
		t.Error("no socket left: the test above proves nothing on this kernel")
	}
}

// TestSlowClientGetsAll: a firmware that takes its bytes slowly, but goes on taking
// them, is not cut off, however long the whole file takes.
func TestSlowClientGetsAll(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const drain, size = 2 * time.Second, 128 << 10
	l := &listener{Listener: ln, ctx: ctx, drain: drain}
	sent := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Write(make([]byte, size))
			err = errors.Join(err, c.Close())
		}
		sent <- err
	}()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { // a small window, so that bytes stay with the server
			if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10); err != nil {
				t.Error(err)
			}
		})
	}}
	c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	got, start := 0, time.Now()
	for got < size {
		n, err := c.Read(make([]byte, 2<<10))
		if got += n; err != nil {
			t.Fatalf("cut off after %d of %d bytes and %v: %v", got, size, time.Since(start), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if took := time.Since(start); took <= drain+readTime {
		t.Errorf("all was there in %v: the client was not slow, nothing was tested", took)
	}
	cancel()
	l.wg.Wait()
}
