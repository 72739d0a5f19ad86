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
	"labswarm/api/diskrule"
	"labswarm/api/order"
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

// PlanJob is the dry run: what CreateJob would do, and nothing is stored.
func (e *Engine) PlanJob(ctx context.Context, req *api.JobCreate) (api.JobPlan, error) {
	img, err := e.image(req)
	if err == nil {
		err = checkDisk(req)
	}
	if err != nil {
		return api.JobPlan{}, err
	}
	plan := api.JobPlan{Image: img.Name, Version: img.Version, Bytes: img.BytesShipped}
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		hosts, err := targets(tx, req)
		if err == nil {
			err = usable(tx, img.Image)
		}
		if err != nil {
			return err
		}
		plan.Hosts = nil
		for _, h := range hosts {
			line, err := planHost(tx, h, img, req)
			if err != nil {
				return err
			}
			plan.Hosts = append(plan.Hosts, line)
		}
		return nil
	})
	return plan, problem(err)
}

// planHost says what would happen to one host.
func planHost(tx store.Tx, h api.Host, img ImageInfo, req *api.JobCreate) (api.JobPlanHost, error) {
	line := api.JobPlanHost{Host: h.Name, Verdict: "go", Reason: "armed at once; starts when the host boots from the network"}
	j, s, err := hostSlot(tx, h.Name)
	if err != nil {
		return line, err
	}
	switch {
	case inventory.Barred(h, req.Room != "") != "":
		line.Verdict, line.Reason = "refuse", inventory.Barred(h, req.Room != "")
	case s != nil && s.Live():
		line.Verdict, line.Reason = "refuse", fmt.Sprintf("%s in job %d, which has not ended", s.State, j.ID)
	}
	if h.Evidence == nil {
		return line, nil
	}
	want, err := wanted(h, req.Disk)
	if err != nil {
		return line, err
	}
	want.MinBytes, want.Sector, want.Replace, want.Own = img.MinBytes, img.Sector, req.ReplaceForeign, img.Own
	d, fault := diskrule.Pick(h.Evidence.Disks, want)
	if fault != nil {
		if line.Verdict == "go" {
			line.Reason = "as last seen it will be refused: " + fault.Text
		}
		return line, nil
	}
	line.Disk = fmt.Sprintf("%s %s %d bytes", d.Model, d.Serial, d.Bytes)
	if len(d.Foreign) > 0 {
		line.Disk += ", REPLACES " + diskrule.Marks(d.Foreign)
	}
	return line, nil
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

// checkCreate applies the rules that need no store.
func checkCreate(req *api.JobCreate, img ImageInfo) error {
	want, what := img.Name, "the image's name"
	if req.Room != "" {
		want, what = req.Room, "the room's name"
	}
	switch {
	case req.Confirm != want:
		return badRequest(api.CodeConfirm, "this erases disks: confirm it by typing %s, %q (got %q)", what, want, req.Confirm)
	case req.Personalise != "" && req.Personalise != order.PersonaliseRequire && req.Personalise != order.PersonaliseTry && req.Personalise != order.PersonaliseOff:
		return badRequest(api.CodeUsage, "personalise %q: use require, try or off", req.Personalise)
	case req.MaxAttempts < 0 || req.MaxAttempts > maxAttempts:
		return badRequest(api.CodeUsage, "%d attempts: at most %d", req.MaxAttempts, maxAttempts)
	}
	if err := checkTimes(req.After, req.ExpiresInS); err != nil {
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
	j := job.Job{
		Image: img.Name, Version: img.Version, Room: req.Room, Created: now.UTC(),
		NotAfter: now.UTC().Add(job.DefaultLife), Overrun: job.MaxOverrun, After: req.After, Personal: req.Personalise,
		MaxHard: job.DefaultHard, MaxSoft: job.DefaultSoft,
		CellBytes: img.CellBytes, Cells: img.Cells, BytesShipped: img.BytesShipped, DiskBytes: img.DiskBytes,
		MinBytes: img.MinBytes, Sector: img.Sector, Disk: req.Disk, Replace: req.ReplaceForeign, Own: img.Own, InfoHash: img.InfoHash, ManifestDigest: img.Digest, Readback: img.Readback,
	}
	if req.ExpiresInS > 0 {
		j.NotAfter = now.UTC().Add(time.Duration(req.ExpiresInS) * time.Second)
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

// CreateJob stores a job and arms its hosts in one transaction. idemKey ""
// means that the caller cannot repeat itself safely.
func (e *Engine) CreateJob(ctx context.Context, req *api.JobCreate, idemKey string) (api.Job, error) {
	digest, err := digestOf(req)
	if err != nil {
		return api.Job{}, err
	}
	if id, err := e.answered(ctx, idemKey, digest); err != nil || id != 0 {
		if err != nil {
			return api.Job{}, err
		}
		return e.Job(ctx, id)
	}
	img, err := e.image(req)
	if err != nil {
		return api.Job{}, err
	}
	if err := checkCreate(req, img); err != nil {
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
		job: func(now time.Time) job.Job { return newJob(req, img, now) }, named: req.Room == "",
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
	e.cfg.Log.Info("job created", "job", j.ID, "image", j.Image+"/"+j.Version, "room", j.Room, "hosts", len(j.Hosts))
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

// answered returns the job an idempotency key made before.
func (e *Engine) answered(ctx context.Context, key, digest string) (id uint64, err error) {
	if key == "" {
		return 0, nil
	}
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		id, err = seenKey(tx, key, digest)
		return err
	})
	return id, err
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

// wish is a job to be stored. Both functions must be pure.
type wish struct {
	hosts func(tx store.Tx) ([]api.Host, error)
	job   func(now time.Time) job.Job
	named bool // the hosts were named one by one
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
		if j.ID, err = tx.Seq("job"); err != nil {
			return err
		}
		if !j.IsCapture() {
			if j.Scope, err = scopeFor(tx, j.InfoHash, scope); err != nil {
				return err
			}
		}
		if err := putSlots(tx, &j, hosts, now); err != nil {
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

// putSlots stores job, slots, pointers and the first event.
func putSlots(tx store.Tx, j *job.Job, hosts []api.Host, now time.Time) error {
	for _, h := range hosts {
		j.Hosts = append(j.Hosts, h.Name)
	}
	for i, s := range job.New(j, hosts, now) {
		var ev job.Event = job.Arm{}
		barred := inventory.Barred(hosts[i], j.Room != "")
		if barred != "" {
			ev = job.Skip{Reason: barred}
		}
		s, lines, err := job.Apply(j, s, ev, now)
		if err != nil {
			return err
		}
		if err := putJSON(tx, keySlot(slotKey{j.ID, s.Host}), s); err != nil {
			return err
		}
		if err := logLines(tx, s, lines, now); err != nil {
			return err
		}
		if barred != "" {
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
	text := fmt.Sprintf("job created: image %s/%s, %d hosts", j.Image, j.Version, len(hosts)) + diskText(j)
	if j.IsCapture() {
		text = fmt.Sprintf("job created: capture %s of %s, forced guards: %v", j.Image, strings.Join(j.Hosts, ", "), j.Force)
	}
	_, err := event.Append(tx, api.Event{Time: now.UTC(), Level: "info", Code: "job_created", Job: j.ID, Room: j.Room, Text: text})
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
