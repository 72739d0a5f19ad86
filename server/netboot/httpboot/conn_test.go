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
	l := &listener{Listener: ln, ctx: ctx}
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
