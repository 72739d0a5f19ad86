// Package httpapi is the server's HTTP surface: the agent listener (TLS 1.3,
// mutual, no admin route) and the admin socket (unix socket, no agent route).
// It checks sizes, times, rates and JSON, and passes on; what is allowed is
// decided behind the interfaces AgentService and AdminService. Called by
// server/daemon.
package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"labswarm/api"
)

const (
	writeLimit = 10 * time.Second // one write to one client
	lagLimit   = 3 * time.Second  // one write to a reader that keeps up
	keepAlive  = 15 * time.Second // SSE comment
)

// server returns an http.Server with every limit set. Answers have no global
// write limit, because event streams have no end; handlers set one per write.
func server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// handler answers with an error; the wrapper turns it into a problem.
type handler func(w http.ResponseWriter, r *http.Request) error

// wrap bounds the answer's time, survives a panic and renders errors.
func wrap(log *slog.Logger, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("request handler", "path", r.URL.Path, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
				problem(w, fmt.Errorf("internal error"))
			}
		}()
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
			log.Debug("write deadline", "err", err)
		}
		if err := h(w, r); err != nil {
			var p *api.Problem
			if !errors.As(err, &p) && r.Context().Err() == nil {
				log.Error("request", "method", r.Method, "path", r.URL.Path, "err", err)
			}
			problem(w, err)
		}
	})
}

// problem writes an error as application/problem+json (RFC 9457).
func problem(w http.ResponseWriter, err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		p = &api.Problem{Status: http.StatusInternalServerError, Title: "internal error", Code: api.CodeInternal, Detail: err.Error()}
	}
	if id := w.Header().Get(requestID); id != "" {
		named := *p
		named.RequestID, p = id, &named
	}
	raw, merr := json.Marshal(p)
	if merr != nil {
		raw = []byte(`{"status":500,"code":"internal"}`)
	}
	if p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(raw) // the client has gone: nobody is left to tell
}

func fail(status int, code, format string, a ...any) error {
	return &api.Problem{Status: status, Title: strings.ToLower(http.StatusText(status)), Code: code, Detail: fmt.Sprintf(format, a...)}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, v any) error { return answerStatus(w, http.StatusOK, v) }

func answerStatus(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the client has gone: it asks again
	return nil
}

// decode reads exactly one JSON object of at most limit bytes. Unknown names
// are refused: a field we ignore might be the one that limits the damage.
func decode(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	raw, err := readBody(w, r, limit)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fail(http.StatusBadRequest, api.CodeUsage, "read request: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fail(http.StatusBadRequest, api.CodeUsage, "read request: data after the object")
	}
	return nil
}

// readBody reads a request's body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return nil, fail(http.StatusRequestEntityTooLarge, api.CodeUsage, "the request has more than %d bytes", limit)
	case err != nil:
		return nil, fail(http.StatusBadRequest, api.CodeUsage, "read request: %v", err)
	}
	return raw, nil
}

// stream is one SSE connection. Each write has its own deadline: a reader that
// is slower is cut and comes back with the number it has seen.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	lag time.Duration // a write that takes longer is too slow
}

func newStream(w http.ResponseWriter) (*stream, error) {
	s := &stream{w: w, rc: http.NewResponseController(w), lag: writeLimit}
	// The read limit of the request must not end the stream.
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("open event stream: %w", err)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return s, s.comment("labswarm")
}

func (s *stream) raw(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	begun := time.Now()
	if _, err := io.WriteString(s.w, text); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if time.Since(begun) > s.lag {
		return errLagged
	}
	return nil
}

// errLagged says that a reader took too long to read one event.
var errLagged = errors.New("the reader does not keep up")

// cut tells a reader that it was too slow, if it still reads, and that it may
// come back with the number it has seen.
func (s *stream) cut() {
	_ = s.rc.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(s.w, "event: lagged\ndata: {}\n\n") // best effort: the connection ends here
	_ = s.rc.Flush()
}

func (s *stream) comment(text string) error { return s.raw(": " + text + "\n\n") }

// send writes one event; id 0 = none.
func (s *stream) send(name string, id uint64, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	text := "event: " + name + "\n"
	if id != 0 {
		text = fmt.Sprintf("id: %d\n%s", id, text)
	}
	return s.raw(text + "data: " + string(data) + "\n\n")
}
