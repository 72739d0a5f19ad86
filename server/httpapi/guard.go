package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"labswarm/api"
	"labswarm/server/access"
)

const (
	requestID    = "X-Request-Id"
	badPerS      = 1   // wrong tokens per second and source, burst 5: then 429 before anything is looked up
	refusedPerS  = 0.2 // refused calls of unknown people in the audit log, burst 50: nobody pushes the others out of it
	refusedBurst = 50
)

// door is how a request came in: one per connection on the socket, one for all
// on the TLS listener.
type door struct {
	caller access.Caller
	err    error // why the socket's peer is not let in
	bearer bool  // each request shows a token
}

type doorKey struct{}

// onSocket tells the handlers who is at the other end of a unix connection.
func (a *Admin) onSocket(ctx context.Context, conn net.Conn) context.Context {
	c, err := a.peers.Caller(conn)
	return context.WithValue(ctx, doorKey{}, &door{caller: c, err: err})
}

// caller finds out who sends r.
func (a *Admin) caller(r *http.Request) (access.Caller, error) {
	d, _ := r.Context().Value(doorKey{}).(*door)
	nobody := access.Caller{Who: "nobody", From: r.RemoteAddr}
	switch {
	case d == nil:
		return nobody, fail(http.StatusUnauthorized, api.CodeBadToken, "nobody knows who asks")
	case !d.bearer:
		return d.caller, d.err
	case a.book == nil:
		return nobody, fail(http.StatusUnauthorized, api.CodeBadToken, "this server keeps no tokens")
	}
	return a.book.Bearer(r.Context(), r.Header.Get("Authorization"), r.RemoteAddr)
}

// allowed is the one place that says who may call a route. body is the
// request's, nil for questions.
func (rt *Route) allowed(c access.Caller, r *http.Request, body []byte) error {
	switch {
	case c.Role < rt.Role:
		return access.Refuse("%s is %s; to %s takes %s", c.Who, c.Role, rt.Summary, rt.Role)
	case rt.SocketOnly && !c.Socket:
		return access.Refuse("%s: this works on the server only, over its socket", rt.Summary)
	case rt.Role == api.RoleViewer || c.Rooms == nil:
		return nil
	case rt.rooms == nil:
		return access.Refuse("%s may act in some rooms only, and this is for the whole server: %s", c.Who, rt.Summary)
	}
	rooms, err := rt.rooms(r, body)
	if err != nil {
		return err
	}
	return c.MayTouch(rooms)
}

// guard stands before every handler: who is it, may they, has this been done
// before; and after it: the audit log.
func (a *Admin) guard(rt Route) http.Handler {
	return wrap(a.log, func(w http.ResponseWriter, r *http.Request) error {
		r, done, c, err := a.enter(w, r, rt.Summary)
		if err != nil {
			return err
		}
		defer done()
		if r.Method == http.MethodGet {
			if err := rt.allowed(c, r, nil); err != nil {
				a.refused(r, c, rt.Summary, nil, err)
				return err
			}
			return rt.h(w, r)
		}
		body, err := readBody(w, r, adminBody)
		if err != nil {
			return err
		}
		if err := rt.allowed(c, r, body); err != nil {
			a.refused(r, c, rt.Summary, body, err)
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if a.book == nil || (rt.asks != nil && rt.asks(body)) {
			return rt.h(w, r)
		}
		return a.act(w, r, rt, c, body)
	})
}

// enter names the request and finds its caller, whose token holds it open.
func (a *Admin) enter(w http.ResponseWriter, r *http.Request, what string) (*http.Request, func(), access.Caller, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	w.Header().Set(requestID, hex.EncodeToString(id[:]))
	r.Header.Set(requestID, hex.EncodeToString(id[:]))
	c, err := a.caller(r)
	if err != nil {
		if c.Socket || a.bad.allow(from(r)) {
			a.refused(r, c, what, nil, err)
		} else {
			err = fail(http.StatusTooManyRequests, api.CodeTooManyTries, "too many requests without a valid token: try again in a moment")
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		return r, nil, c, err
	}
	if a.book == nil {
		return r, func() {}, c, nil
	}
	ctx, done, err := a.book.Hold(r.Context(), c)
	if err != nil {
		return r, nil, c, err
	}
	return r.WithContext(ctx), done, c, nil
}

// refused logs a call that was not let in.
func (a *Admin) refused(r *http.Request, c access.Caller, what string, body []byte, err error) {
	var p *api.Problem
	if !errors.As(err, &p) || a.book == nil {
		return
	}
	if p.Code == api.CodeBadToken && !a.strangers.Allow() {
		a.log.Warn("refused call not in the audit log: too many", "from", r.RemoteAddr, "path", r.URL.Path)
		return
	}
	a.book.Refused(r.Context(), access.Request{Caller: c, ID: r.Header.Get(requestID), Method: r.Method, Path: r.URL.Path, What: what, Body: body}, err)
}

// act runs a handler that changes something: once per Idempotency-Key, and with
// a line in the audit log.
func (a *Admin) act(w http.ResponseWriter, r *http.Request, rt Route, c access.Caller, body []byte) error {
	key := r.Header.Get("Idempotency-Key")
	if len(key) > access.MaxKey || (key == "" && r.Method == http.MethodPost) {
		return fail(http.StatusBadRequest, api.CodeUsage, "%s: needs an Idempotency-Key header of 1 to %d characters, a new one for each wish, so that a repeated request does nothing twice", rt.Summary, access.MaxKey)
	}
	call, old, err := a.book.Begin(r.Context(), access.Request{Caller: c, ID: r.Header.Get(requestID), Method: r.Method, Path: r.URL.Path, What: rt.Summary,
		Body: body, Key: key, Rerun: rt.rerun, Secret: rt.Secret, IfMatch: r.Header.Get("If-Match")})
	out := &held{header: http.Header{}, status: http.StatusOK}
	out.header.Set(requestID, r.Header.Get(requestID))
	switch {
	case err != nil:
		problem(out, err)
	case old != nil:
		out.take(old)
	default:
		a.try(out, r.WithContext(call.With(r.Context())), rt)
	}
	if err := a.book.End(r.Context(), call, out.answer(), old != nil); err != nil {
		a.log.Error("audit record not kept", "who", c.Who, "method", r.Method, "path", r.URL.Path, "status", out.status, "err", err)
	}
	out.send(w)
	return nil
}

// try runs a handler whose answer is held back; a panic is an answer, too.
func (a *Admin) try(w *held, r *http.Request, rt Route) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("request handler", "path", r.URL.Path, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			w.body.Reset()
			problem(w, fmt.Errorf("internal error"))
		}
	}()
	if err := rt.h(w, r); err != nil {
		var p *api.Problem
		if !errors.As(err, &p) && r.Context().Err() == nil {
			a.log.Error("request", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		problem(w, err)
	}
}

// held is an answer that waits until the books are written.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(b []byte) (int, error) { return h.body.Write(b) }

func (h *held) answer() *access.Answer {
	return &access.Answer{Status: h.status, Type: h.header.Get("Content-Type"), Location: h.header.Get("Location"), ETag: h.header.Get("ETag"), Body: h.body.Bytes()}
}

func (h *held) take(a *access.Answer) {
	h.status = a.Status
	for name, v := range map[string]string{"Content-Type": a.Type, "Location": a.Location, "ETag": a.ETag, "Idempotency-Replayed": "true"} {
		if v != "" {
			h.header.Set(name, v)
		}
	}
	h.body.Write(a.Body)
}

func (h *held) send(w http.ResponseWriter) {
	// The handler may have taken long: the answer has its own time.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeLimit)) // not supported in tests only
	for name, v := range h.header {
		w.Header()[name] = v
	}
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body.Bytes()) // the client has gone: it asks again
}

// tagged answers with the ETag of what a person can edit of v.
func tagged(w http.ResponseWriter, v, editable any) error {
	w.Header().Set("ETag", access.ETag(editable))
	return answer(w, v)
}
