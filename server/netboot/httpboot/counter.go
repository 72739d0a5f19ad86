package httpboot

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// counter counts the body bytes that went into the connection.
type counter struct {
	http.ResponseWriter
	n      int64
	status int
	failed bool
}

// WriteHeader notes the status.
func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	c.failed = c.failed || err != nil
	return n, err
}

// ReadFrom keeps the fast path of net/http for large files.
func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.n += n
	c.failed = c.failed || err != nil
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// last reports whether the answer reached the file's last byte: a whole file,
// or the range that ends it. A loader that fetches in ranges counts once.
func (c *counter) last(size int64) bool {
	if c.failed {
		return false
	}
	switch c.status {
	case http.StatusOK:
		return c.n == size
	case http.StatusPartialContent:
		_, rest, ok := strings.Cut(c.Header().Get("Content-Range"), "-")
		end, _, ok2 := strings.Cut(rest, "/")
		return ok && ok2 && end == strconv.FormatInt(size-1, 10)
	}
	return false
}
