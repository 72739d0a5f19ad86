package httpapi

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/access"
)

// Limits of the capture routes.
const (
	draftBody  = 32 << 20 // a used map of manifest.MaxExtents extents, in base64
	draftLimit = time.Minute
	cellPause  = 2 * time.Minute // between two pieces of a stream of cells: a disk may try a bad sector for long
)

func (a *Agent) captureState(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	st, err := a.svc.CaptureState(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, st)
}

// captureDraft takes a body that may be large, but only from a session that captures.
func (a *Agent) captureDraft(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	if _, err := a.svc.CaptureState(r.Context(), id); err != nil {
		return err
	}
	a.patience(w, draftLimit)
	var d api.CaptureDraft
	if err := decode(w, r, draftBody, &d); err != nil {
		return err
	}
	st, err := a.svc.CaptureDraft(r.Context(), id, &d)
	if err != nil {
		return err
	}
	return answer(w, st)
}

// captureCells passes the body on as it comes. It has no limit of length, which the number of cells sets, but one
// between two pieces.
func (a *Agent) captureCells(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	body := &patient{r: r.Body, rc: http.NewResponseController(w)}
	st, err := a.svc.CaptureCells(r.Context(), id, body, body.abort)
	a.patience(w, writeLimit)
	if err != nil {
		return err
	}
	return answer(w, st)
}

func (a *Agent) captureFinish(w http.ResponseWriter, r *http.Request) error {
	var req struct{}
	return withBody(w, r, smallBody, &req, func(cert string) (any, error) { return a.svc.CaptureFinish(r.Context(), cert) })
}

// patience gives a request more time, from now on.
func (a *Agent) patience(w http.ResponseWriter, d time.Duration) {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(d)); err != nil {
		a.log.Debug("read deadline", "err", err)
	}
	if err := rc.SetWriteDeadline(time.Now().Add(d)); err != nil {
		a.log.Debug("write deadline", "err", err)
	}
}

// patient is a body whose every read has a limit of its own.
type patient struct {
	r  io.Reader
	rc *http.ResponseController

	mu      sync.Mutex // of aborted, and while a limit is set
	aborted bool
}

// Read reads what comes within cellPause.
func (p *patient) Read(b []byte) (int, error) {
	p.mu.Lock()
	err := os.ErrDeadlineExceeded
	if !p.aborted {
		err = p.rc.SetReadDeadline(time.Now().Add(cellPause))
	}
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// abort ends a read that waits, and all later ones.
func (p *patient) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aborted = true
	_ = p.rc.SetReadDeadline(time.Now()) // fails on a connection that is closed already
}

func (a *Admin) capture(w http.ResponseWriter, r *http.Request) error {
	var req api.CaptureCreate
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	key, err := idemKey(r, "ordering a capture")
	if err != nil {
		return err
	}
	j, err := a.svc.CreateCapture(r.Context(), r.PathValue("name"), &req, key)
	if err != nil {
		return err
	}
	return created(w, j)
}

// idemKey is the request's Idempotency-Key for handlers that store it with
// their effect: the caller's own, so that nobody meets another's.
func idemKey(r *http.Request, what string) (string, error) {
	if c := access.From(r.Context()); c != nil && c.Key() != "" {
		return c.Key(), nil
	}
	key := r.Header.Get("Idempotency-Key")
	if key == "" || len(key) > access.MaxKey {
		return "", fail(http.StatusBadRequest, api.CodeUsage, "%s needs an Idempotency-Key header of 1 to %d characters, so that a repeated request makes no second job", what, access.MaxKey)
	}
	return key, nil
}

// created answers with a new job.
func created(w http.ResponseWriter, j api.Job) error {
	w.Header().Set("Location", api.RouteJobs+"/"+strconv.FormatUint(j.ID, 10))
	return answerStatus(w, http.StatusCreated, j)
}
