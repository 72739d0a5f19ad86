package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/manifest"
	"labswarm/images/survey"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

// CaptureOptions says what is made of a captured disk.
type CaptureOptions struct {
	Image string
	Cell  int64 // bytes, 0 = by size
	Force []string
	Base  string // version whose cells need not come; "" = none
}

// Captures receives the disks of terminals; id is the job's. Calls may come at the same time, and repeated.
type Captures interface {
	// Keep drops what is left of captures that live does not know.
	Keep(live func(id uint64) bool)
	// State says how far a capture is.
	State(id uint64) api.CaptureState
	// Draft begins a capture or goes on with it.
	Draft(id uint64, o CaptureOptions, d *api.CaptureDraft) (api.CaptureState, error)
	// Base returns the hashes of the base's cells.
	Base(id uint64) ([]byte, error)
	// Cells takes a stream of cells. abort ends its reading; a later stream calls it.
	Cells(ctx context.Context, id uint64, body io.Reader, abort func()) (api.CaptureState, error)
	// Finish publishes in the background, and then calls done, whose error takes it back.
	Finish(id uint64, done func(img api.Image) error) (api.CaptureState, error)
	// Drop ends a capture and removes what is not published.
	Drop(id uint64)
}

// CreateCapture stores a job that makes an image of one host's disk, and arms the host.
func (e *Engine) CreateCapture(ctx context.Context, image string, req *api.CaptureCreate, idemKey string) (api.Job, error) {
	if err := checkCapture(image, req); err != nil {
		return api.Job{}, err
	}
	base, err := e.captureBase(image, req.Base)
	if err != nil {
		return api.Job{}, err
	}
	digest, err := digestOf(struct {
		Image string
		Req   *api.CaptureCreate
	}{image, req})
	if err != nil {
		return api.Job{}, err
	}
	w := wish{
		hosts: func(tx store.Tx) ([]api.Host, error) {
			h, err := inventory.Get(tx, req.Host)
			return []api.Host{h}, err
		},
		job: func(now time.Time) job.Job { return newCapture(image, base, req, now) }, named: true,
	}
	j, err := e.storeJob(ctx, w, idemKey, digest)
	if err != nil {
		return api.Job{}, problem(err)
	}
	e.bell.Ring()
	e.cfg.Log.Info("capture ordered", "job", j.ID, "image", image, "host", req.Host, "force", fmt.Sprint(req.Force))
	return e.Job(ctx, j.ID)
}

func checkCapture(image string, req *api.CaptureCreate) error {
	if err := manifest.CheckName(image); err != nil {
		return badRequest(api.CodeUsage, "%v", err)
	}
	for _, f := range req.Force {
		if !slices.Contains(survey.Guards(), f) {
			return badRequest(api.CodeUsage, "guard %q is not known; %s can be overridden, each by its name", f, strings.Join(survey.Guards(), ", "))
		}
	}
	switch {
	case req.Host == "":
		return badRequest(api.CodeUsage, "no host named: `labswarm host ls` shows what there is")
	case req.CellBytes != 0 && !slices.Contains(manifest.CellSizes(), req.CellBytes):
		return badRequest(api.CodeUsage, "cell size %d is not one of 256 KiB, 1 MiB, 2 MiB and 4 MiB", req.CellBytes)
	}
	return checkTimes(req.After, req.ExpiresInS)
}

func newCapture(image, base string, req *api.CaptureCreate, now time.Time) job.Job {
	j := newJob(&api.JobCreate{After: req.After, ExpiresInS: req.ExpiresInS}, ImageInfo{}, now)
	j.Kind, j.Image, j.CellBytes, j.Force, j.Base = job.KindCapture, image, req.CellBytes, req.Force, base
	return j
}

// captureEvent signs the order to read a disk. It holds neither a fence nor a place in a swarm.
func (e *Engine) captureEvent(j *job.Job, s *job.Slot, h api.Host, ev job.Enrol, req *api.EnrolRequest, issued time.Time) (job.Enrol, error) {
	c := order.Capture{
		V: 1, ID: ev.Session.OrderID, ServerKeyID: e.keyID, IssuedAt: issued.Format(time.RFC3339), Job: j.ID, Attempt: s.Hard + 1,
		Host: hostID(h, req.Evidence), BootID: req.BootID, AgentNonce: req.Nonce, Disk: diskID(*ev.Disk),
		Image: j.Image, Force: append([]string{}, j.Force...), After: j.After,
		ExpiresAfterS: min(max(int64(j.NotAfter.Add(j.Overrun).Sub(issued)/time.Second), minOrderS), maxOrderS),
	}
	env, err := order.Sign(e.cfg.Key, order.TypeCapture, c)
	if err != nil {
		return ev, err
	}
	ev.Session.Order, err = json.Marshal(env)
	return ev, err
}

// capture returns the session of an agent that captures.
func (e *Engine) capture(ctx context.Context, cert string) (*job.Job, *job.Slot, error) {
	j, s, err := e.session(ctx, cert)
	if err == nil && !j.IsCapture() {
		err = conflict(api.CodeNoOrder, "this boot's order is not to capture a disk")
	}
	return j, s, err
}

// CaptureState says how far the capture of a session is.
func (e *Engine) CaptureState(ctx context.Context, cert string) (api.CaptureState, error) {
	j, s, err := e.capture(ctx, cert)
	switch {
	case err != nil:
		return api.CaptureState{}, err
	case s.State.Good():
		return api.CaptureState{Phase: api.CapturePublished, Image: j.Image + "/" + j.Version}, nil
	case !s.Live():
		return api.CaptureState{}, conflict(api.CodeNoOrder, "the capture has ended: the host is %s in job %d. %s", s.State, s.Job, s.Error)
	}
	return e.cfg.Captures.State(j.ID), nil
}

// liveCapture is capture of a job that has not ended.
func (e *Engine) liveCapture(ctx context.Context, cert string) (*job.Job, *job.Slot, error) {
	j, s, err := e.capture(ctx, cert)
	if err == nil && !s.Live() {
		err = conflict(api.CodeNoOrder, "the capture has ended: the host is %s in job %d. %s", s.State, s.Job, s.Error)
	}
	return j, s, err
}

// CaptureDraft begins to receive the disk of a session's host, or goes on.
func (e *Engine) CaptureDraft(ctx context.Context, cert string, d *api.CaptureDraft) (api.CaptureState, error) {
	j, s, err := e.liveCapture(ctx, cert)
	if err != nil {
		return api.CaptureState{}, err
	}
	if d.BootID != s.Session.BootID || s.Disk == nil || d.Size != s.Disk.Bytes || d.Sector != s.Disk.Sector {
		return api.CaptureState{}, conflict(api.CodeBadOrder, "capture: the agent speaks of a disk of %d bytes, the order names another", d.Size)
	}
	return e.cfg.Captures.Draft(j.ID, CaptureOptions{Image: j.Image, Cell: j.CellBytes, Force: j.Force, Base: j.Base}, d)
}

// captureBase returns the version that a capture is made on; want may be latest.
func (e *Engine) captureBase(image, want string) (string, error) {
	if want == "" {
		return "", nil
	}
	info, err := e.cfg.Images.Find(image, want)
	if err != nil {
		return "", badRequest(api.CodeUsage, "base %s/%s: %v", image, want, err)
	}
	return info.Version, nil
}

// CaptureBase returns the hashes of the base's cells.
func (e *Engine) CaptureBase(ctx context.Context, cert string) ([]byte, error) {
	j, _, err := e.liveCapture(ctx, cert)
	if err != nil {
		return nil, err
	}
	return e.cfg.Captures.Base(j.ID)
}

// CaptureCells takes a stream of cells.
func (e *Engine) CaptureCells(ctx context.Context, cert string, body io.Reader, abort func()) (api.CaptureState, error) {
	j, _, err := e.liveCapture(ctx, cert)
	if err != nil {
		return api.CaptureState{}, err
	}
	return e.cfg.Captures.Cells(ctx, j.ID, body, abort)
}

// CaptureFinish has the image published when all cells are here.
func (e *Engine) CaptureFinish(ctx context.Context, cert string) (api.CaptureState, error) {
	j, s, err := e.liveCapture(ctx, cert)
	if err != nil {
		return api.CaptureState{}, err
	}
	k := slotKey{j.ID, s.Host}
	return e.cfg.Captures.Finish(j.ID, func(img api.Image) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return e.captured(ctx, k, img)
	})
}

// captured commits that an image is there.
func (e *Engine) captured(ctx context.Context, k slotKey, img api.Image) error {
	var out outcome
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		j, err := getJob(tx, k.job)
		if err != nil {
			return err
		}
		j.Version, j.CellBytes, j.Cells, j.BytesShipped, j.DiskBytes = img.Version, img.CellBytes, img.Cells, img.BytesShipped, img.DiskBytes
		if err := putJSON(tx, keyJob(k.job), j); err != nil {
			return err
		}
		out, err = applyTx(tx, k, func(_ store.Tx, _ *job.Job, s *job.Slot) (job.Event, error) {
			if s.Session == nil {
				return nil, conflict(api.CodeNoSession, "the capture has no session")
			}
			return job.Captured{BootID: s.Session.BootID, Detail: fmt.Sprintf("image %s/%s is there: %d cells, %d bytes to ship", img.Name, img.Version, img.Cells, img.BytesShipped)}, nil
		}, time.Now())
		return err
	})
	if err != nil {
		return problem(err)
	}
	e.after(&out)
	return nil
}

// noCaptures stands for a server without an image store to write to.
type noCaptures struct{}

func (noCaptures) Keep(func(uint64) bool)        {}
func (noCaptures) State(uint64) api.CaptureState { return api.CaptureState{} }
func (noCaptures) Drop(uint64)                   {}
func (noCaptures) Draft(uint64, CaptureOptions, *api.CaptureDraft) (api.CaptureState, error) {
	return api.CaptureState{}, errNoCaptures()
}
func (noCaptures) Base(uint64) ([]byte, error) { return nil, errNoCaptures() }
func (noCaptures) Cells(context.Context, uint64, io.Reader, func()) (api.CaptureState, error) {
	return api.CaptureState{}, errNoCaptures()
}
func (noCaptures) Finish(uint64, func(api.Image) error) (api.CaptureState, error) {
	return api.CaptureState{}, errNoCaptures()
}

func errNoCaptures() error {
	return &api.Problem{Status: http.StatusNotImplemented, Title: "not here", Code: api.CodeInternal, Detail: "this server takes no captures"}
}
