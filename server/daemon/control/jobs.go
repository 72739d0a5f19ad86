package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/access"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

const (
	maxHostsPerJob = 1000
	maxLife        = 7 * 24 * time.Hour
	maxAttempts    = 20
)

// idem remembers an answered request for 24 hours.
type idem struct {
	Digest string    `json:"digest"`
	Job    uint64    `json:"job"`
	At     time.Time `json:"at"`
}

// image finds the image of a request.
func (e *Engine) image(req *api.JobCreate) (ImageInfo, error) {
	name, version := req.Image, req.Version
	if n, v, ok := strings.Cut(name, "/"); ok {
		if version != "" && version != v {
			return ImageInfo{}, badRequest(api.CodeUsage, "image %q and version %q contradict each other", req.Image, req.Version)
		}
		name, version = n, v
	}
	if name == "" {
		return ImageInfo{}, badRequest(api.CodeUsage, "no image named: `labswarm image ls` shows what there is")
	}
	img, err := e.cfg.Images.Find(name, version)
	if err != nil {
		return img, notFound("%v", err)
	}
	return img, nil
}

// targets resolves a request to hosts.
func targets(tx store.Tx, req *api.JobCreate) ([]api.Host, error) {
	switch {
	case (req.Room == "") == (len(req.Hosts) == 0):
		return nil, badRequest(api.CodeUsage, "name either a room or hosts")
	case len(req.Hosts) > maxHostsPerJob:
		return nil, badRequest(api.CodeUsage, "%d hosts, at most %d in one job", len(req.Hosts), maxHostsPerJob)
	case req.Room != "":
		return inventory.InRoom(tx, req.Room)
	}
	var out []api.Host
	var unknown []string
	for _, name := range req.Hosts {
		h, err := inventory.Get(tx, name)
		var nf *inventory.NotFoundError
		switch {
		case errors.As(err, &nf):
			unknown = append(unknown, name)
		case err != nil:
			return nil, err
		case !slices.ContainsFunc(out, func(o api.Host) bool { return o.Name == h.Name }):
			out = append(out, h)
		}
	}
	if unknown != nil {
		return nil, notFound("hosts not known: %s; `labswarm host ls` shows what there is", strings.Join(unknown, ", "))
	}
	return out, nil
}

// confirmText is what a person types before disks are erased, and what it is.
func confirmText(req *api.JobCreate, image string) (want, what string) {
	if req.Room != "" {
		return req.Room, "the room's name"
	}
	return image, "the image's name"
}

// checkConfirm wants the name typed.
func checkConfirm(req *api.JobCreate, image string) error {
	if want, what := confirmText(req, image); req.Confirm != want {
		return badRequest(api.CodeConfirm, "this erases disks: confirm it by typing %s, %q (got %q)", what, want, req.Confirm)
	}
	return nil
}

// checkRequest applies the rules that need no store, and hold for a dry run, too.
func checkRequest(req *api.JobCreate) error {
	switch {
	case req.Personalise != "" && req.Personalise != order.PersonaliseRequire && req.Personalise != order.PersonaliseTry && req.Personalise != order.PersonaliseOff:
		return badRequest(api.CodeUsage, "personalise %q: use require, try or off", req.Personalise)
	case req.MaxAttempts < 0 || req.MaxAttempts > maxAttempts:
		return badRequest(api.CodeUsage, "%d attempts: at most %d", req.MaxAttempts, maxAttempts)
	}
	if err := checkTimes(req.After, req.ExpiresInS); err != nil {
		return err
	}
	if err := checkPolicy(req, time.Now()); err != nil {
		return err
	}
	return checkDisk(req)
}

// checkTimes judges how a job ends.
func checkTimes(after string, expiresInS int64) error {
	switch {
	case after != "" && after != "reboot" && after != "poweroff":
		return badRequest(api.CodeUsage, "after %q: use reboot or poweroff", after)
	case expiresInS < 0 || expiresInS > int64(maxLife/time.Second):
		return badRequest(api.CodeUsage, "expires in %d s: at most %s", expiresInS, maxLife)
	}
	return nil
}

// newJob fills in a record.
func newJob(req *api.JobCreate, img ImageInfo, now time.Time) job.Job {
	w := windowOf(req, now)
	j := job.Job{
		Image: img.Name, Version: img.Version, Room: req.Room, Created: now.UTC(),
		NotBefore: w.opens, NotAfter: w.closes, Overrun: w.overrun, After: req.After, Personal: req.Personalise,
		MaxHard: job.DefaultHard, MaxSoft: job.DefaultSoft, Policy: job.Policy{OnEnd: req.OnWindowEnd, Canary: req.Canary, Wake: req.Wake},
		CellBytes: img.CellBytes, Cells: img.Cells, BytesShipped: img.BytesShipped, DiskBytes: img.DiskBytes,
		MinBytes: img.MinBytes, Sector: img.Sector, Disk: req.Disk, Replace: req.ReplaceForeign, Own: img.Own, InfoHash: img.InfoHash, ManifestDigest: img.Digest, Readback: img.Readback,
	}
	if j.After == "" {
		j.After = "reboot"
	}
	if j.Personal == "" {
		j.Personal = order.PersonaliseRequire
	}
	if req.MaxAttempts > 0 {
		j.MaxHard, j.MaxSoft = req.MaxAttempts, 2*req.MaxAttempts
	}
	return j
}

// CreateJob stores a job and arms its hosts in one transaction, in which the
// plan that was confirmed must still be true. idemKey "" means that the caller
// cannot repeat itself safely.
func (e *Engine) CreateJob(ctx context.Context, req *api.JobCreate, idemKey string) (api.Job, error) {
	digest, err := digestOf(req)
	if err != nil {
		return api.Job{}, err
	}
	if j, err := e.madeBefore(ctx, idemKey, digest); err != nil || j != nil {
		return orZero(j), err
	}
	return e.createJob(ctx, req, idemKey, digest)
}

// createJob is CreateJob for a key that has made no job before.
func (e *Engine) createJob(ctx context.Context, req *api.JobCreate, idemKey, digest string) (api.Job, error) {
	img, err := e.image(req)
	if err != nil {
		return api.Job{}, err
	}
	if err := checkConfirm(req, img.Name); err != nil {
		return api.Job{}, err
	}
	check := func(tx store.Tx, _ *job.Job, hosts []api.Host) error { return e.checkPlan(tx, req, img, hosts) }
	return e.makeJob(ctx, req, img, check, idemKey, digest)
}

// makeJob stores a job that somebody has agreed to. check has the last word
// inside the transaction, when the job has its number; it must be pure.
func (e *Engine) makeJob(ctx context.Context, req *api.JobCreate, img ImageInfo, check func(store.Tx, *job.Job, []api.Host) error, idemKey, digest string) (api.Job, error) {
	if err := errors.Join(checkRequest(req), e.checkWake(req.Wake)); err != nil {
		return api.Job{}, err
	}
	if err := e.cfg.Store.View(ctx, func(tx store.Tx) error { return usable(tx, img.Image) }); err != nil {
		return api.Job{}, err
	}
	if _, err := store.SaveSnapshot(ctx, e.cfg.Store, e.cfg.SnapshotDir, time.Now()); err != nil {
		return api.Job{}, err
	}
	if err := e.cfg.Swarms.Serve(img.Name, img.Version); err != nil {
		return api.Job{}, fmt.Errorf("serve image %s/%s: %w", img.Name, img.Version, err)
	}
	w := wish{
		hosts: func(tx store.Tx) ([]api.Host, error) {
			if err := usable(tx, img.Image); err != nil { // in this transaction: a removal marks the version in one of its own
				return nil, err
			}
			return targets(tx, req)
		},
		job: func(now time.Time) job.Job { return newJob(req, img, now) }, named: req.Room == "", check: check, failures: req.MaxFailures,
	}
	j, err := e.storeJob(ctx, w, idemKey, digest)
	if err != nil {
		e.stopUnused(ctx, img.InfoHash)
		return api.Job{}, problem(err)
	}
	if err := e.openScope(&j); err != nil {
		return api.Job{}, problem(err)
	}
	e.bell.Ring()
	e.cfg.Log.Info("job created", "job", j.ID, "image", j.Image+"/"+j.Version, "room", j.Room, "hosts", len(j.Hosts), "schedule", j.Schedule)
	return e.Job(ctx, j.ID)
}

// digestOf tells a request from another one with the same idempotency key.
func digestOf(req any) (string, error) {
	raw, err := json.Marshal(req)
	if err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// madeBefore returns the job that an idempotency key made before, nil when none.
func (e *Engine) madeBefore(ctx context.Context, key, digest string) (*api.Job, error) {
	if key == "" {
		return nil, nil
	}
	var id uint64
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		id, err = seenKey(tx, key, digest)
		return err
	})
	if err != nil || id == 0 {
		return nil, err
	}
	j, err := e.Job(ctx, id)
	return &j, err
}

func orZero(j *api.Job) api.Job {
	if j == nil {
		return api.Job{}
	}
	return *j
}

func seenKey(tx store.Tx, key, digest string) (uint64, error) {
	var rec idem
	ok, err := getJSON(tx, keyIdem(key), &rec)
	if err != nil || !ok {
		return 0, err
	}
	if rec.Digest != digest {
		return 0, badRequest(api.CodeIdempotency, "the Idempotency-Key was used for another request")
	}
	return rec.Job, nil
}

// wish is a job to be stored. Its functions must be pure.
type wish struct {
	hosts func(tx store.Tx) ([]api.Host, error)
	job   func(now time.Time) job.Job
	named bool // the hosts were named one by one

	check    func(tx store.Tx, j *job.Job, hosts []api.Host) error // nil = nothing more
	failures string                                                // api.JobPolicy.MaxFailures
}

// storeJob is the transaction of CreateJob and CreateCapture.
func (e *Engine) storeJob(ctx context.Context, w wish, key, digest string) (job.Job, error) {
	var j job.Job
	scope := randomHex()
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		now := time.Now()
		j = w.job(now)
		if key != "" {
			id, err := seenKey(tx, key, digest)
			if err != nil {
				return err
			}
			if id != 0 { // the same request ran at the same time
				old, err := getJob(tx, id)
				if err == nil {
					j = *old
				}
				return err
			}
		}
		hosts, err := w.hosts(tx)
		if err != nil {
			return err
		}
		if err := checkFree(tx, hosts, w.named); err != nil {
			return err
		}
		if j.MaxFailures, err = failureLimit(w.failures, len(hosts)); err != nil {
			return err
		}
		if j.ID, err = tx.Seq("job"); err != nil {
			return err
		}
		if w.check != nil {
			if err := w.check(tx, &j, hosts); err != nil {
				return err
			}
		}
		if !j.IsCapture() {
			if j.Scope, err = scopeFor(tx, j.InfoHash, scope); err != nil {
				return err
			}
		}
		if err := putSlots(tx, &j, hosts, now, access.By(ctx)); err != nil {
			return err
		}
		if key != "" {
			return putJSON(tx, keyIdem(key), idem{Digest: digest, Job: j.ID, At: now.UTC()})
		}
		return nil
	})
	return j, err
}

// checkFree refuses hosts that are in a live job, and excluded hosts that were
// named one by one.
func checkFree(tx store.Tx, hosts []api.Host, named bool) error {
	var busy, excluded []string
	for _, h := range hosts {
		j, s, err := hostSlot(tx, h.Name)
		if err != nil {
			return err
		}
		switch {
		case inventory.Barred(h, !named) != "":
			excluded = append(excluded, h.Name+" ("+inventory.Barred(h, !named)+")")
		case s != nil && s.Live():
			busy = append(busy, fmt.Sprintf("%s (%s in job %d)", h.Name, s.State, j.ID))
		}
	}
	switch {
	case busy != nil:
		return conflict(api.CodeHostBusy, "hosts are in a job that has not ended: %s; wait for it or cancel it", strings.Join(busy, ", "))
	case excluded != nil && named:
		return conflict(api.CodeConflict, "no job may write these hosts: %s", strings.Join(excluded, ", "))
	case len(excluded) == len(hosts):
		return conflict(api.CodeConflict, "no host of the room may be written: %s", strings.Join(excluded, ", "))
	}
	return nil
}

// putSlots stores job, slots, pointers and the first event, whose text ends
// with by.
func putSlots(tx store.Tx, j *job.Job, hosts []api.Host, now time.Time, by string) error {
	if j.Schedule != "" {
		by += ", by schedule " + j.Schedule
	}
	for _, h := range hosts {
		j.Hosts = append(j.Hosts, h.Name)
	}
	slots := job.New(j, hosts, now)
	lines := make([][]job.Line, len(slots))
	barred := make([]string, len(slots))
	for i, h := range hosts { // first who takes no part, then whose turn it is
		if barred[i] = inventory.Barred(h, j.Room != ""); barred[i] != "" {
			if err := step(j, &slots[i], &lines[i], job.Skip{Reason: barred[i]}, now); err != nil {
				return err
			}
		}
	}
	turn, _ := job.Armable(j, slots, now)
	for i, s := range slots {
		if slices.Contains(turn, s.Host) {
			if err := step(j, &slots[i], &lines[i], job.Arm{}, now); err != nil {
				return err
			}
		}
		s = slots[i]
		if err := putJSON(tx, keySlot(slotKey{j.ID, s.Host}), s); err != nil {
			return err
		}
		if err := logLines(tx, s, lines[i], now); err != nil {
			return err
		}
		if barred[i] != "" {
			continue
		}
		if err := putJSON(tx, keyHostJob(s.Host), j.ID); err != nil {
			return err
		}
	}
	if err := putJSON(tx, keyJob(j.ID), j); err != nil {
		return err
	}
	if err := tx.Put(keyLive(j.ID), []byte("1")); err != nil {
		return err
	}
	text := fmt.Sprintf("job created: image %s/%s, %d hosts", j.Image, j.Version, len(hosts)) + diskText(j) + windowText(j)
	if j.IsCapture() {
		text = fmt.Sprintf("job created: capture %s of %s, forced guards: %v", j.Image, strings.Join(j.Hosts, ", "), j.Force)
	}
	_, err := event.Append(tx, api.Event{Time: now.UTC(), Level: "info", Code: "job_created", Job: j.ID, Room: j.Room, Text: text + by})
	return err
}

// step applies an event to a slot that is not stored yet.
func step(j *job.Job, s *job.Slot, lines *[]job.Line, ev job.Event, now time.Time) error {
	next, said, err := job.Apply(j, *s, ev, now)
	*s, *lines = next, append(*lines, said...)
	return err
}

// CancelJob releases every host before its point of no return; the others
// finish.
func (e *Engine) CancelJob(ctx context.Context, id uint64, by string) (api.Job, error) {
	var hosts []string
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		j, err := getJob(tx, id)
		if err != nil {
			return err
		}
		hosts = j.Hosts
		if !j.Ended.IsZero() || !j.Cancelled.IsZero() {
			return nil
		}
		j.Cancelled = time.Now().UTC()
		if err := putJSON(tx, keyJob(id), j); err != nil {
			return err
		}
		_, err = event.Append(tx, api.Event{Time: j.Cancelled, Level: "warn", Code: "job_cancelled", Job: id, Room: j.Room, Text: "job cancelled by " + by})
		return err
	})
	if err != nil {
		return api.Job{}, problem(err)
	}
	for _, h := range hosts {
		if _, err := e.apply(ctx, slotKey{id, h}, job.Cancel{By: by}); err != nil {
			return api.Job{}, problem(err)
		}
	}
	e.bell.Ring()
	return e.Job(ctx, id)
}
