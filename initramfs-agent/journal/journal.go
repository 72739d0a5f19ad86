// Package journal keeps the agent's last log lines in memory, for the server
// to fetch after a failure, and passes them on to the serial console. It is
// written to by every goroutine through log/slog.
package journal

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Keep is how much is kept, in bytes: what RouteLog takes.
const Keep = 256 << 10

// Journal is an io.Writer of whole lines. Its methods are safe for concurrent
// use.
type Journal struct {
	uptime func() time.Duration
	out    chan<- string // console lines; full = dropped

	mu   sync.Mutex
	text []byte
}

// New returns a journal. Lines also go to out, which may be nil; when out is
// full they are kept but not shown.
func New(uptime func() time.Duration, out chan<- string) *Journal {
	return &Journal{uptime: uptime, out: out}
}

// Logger returns a logger into the journal. Times are seconds since power-on:
// nothing else is true on these machines.
func (j *Journal) Logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.String("up", fmt.Sprintf("%.2f", j.uptime().Seconds()))
		}
		return a
	}}))
}

// Write takes one line.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	j.text = append(j.text, p...)
	if len(j.text) > 2*Keep { // not at every line
		j.text = append(j.text[:0], j.text[len(j.text)-Keep:]...)
	}
	j.mu.Unlock()
	if j.out != nil {
		select {
		case j.out <- strings.TrimRight(string(p), "\n"):
		default:
		}
	}
	return len(p), nil
}

// Text returns what is kept, oldest first.
func (j *Journal) Text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text[max(len(j.text)-Keep, 0):])
}
