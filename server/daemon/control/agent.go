package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/api/order"
	"labswarm/server/inventory"
	"labswarm/server/inventory/ident"
	"labswarm/server/job"
	"labswarm/server/store"
)

// rival is a second boot that asks for the place of one that still talks.
type rival struct {
	bootID string
	since  time.Time
}

const (
	rivalGrace  = time.Second // a message of the old boot may have been under way
	rivalRetryS = 3
	progressMs  = 2000
	maxOrderS   = 7 * 24 * 3600
	minOrderS   = 60
	maxRivals   = 4096
	maxEvidence = 32 << 10 // bytes of JSON
)

var hex32 = regexp.MustCompile(`^[0-9a-f]{32}$`)

func checkEnrol(req *api.EnrolRequest) error {
	if !hex32.MatchString(req.BootID) || !hex32.MatchString(req.Nonce) {
		return badRequest(api.CodeUsage, "enrol: boot_id and nonce are 32 lower-case hex digits")
	}
	if req.Profile != "" && req.Profile != api.ProfileEnrol {
		return badRequest(api.CodeUsage, "enrol: profile %.20q is not known", req.Profile)
	}
	if req.PeerPort < 0 || req.PeerPort > 65535 {
		return badRequest(api.CodeUsage, "enrol: peer port %d", req.PeerPort)
	}
	// The host record must fit a value of the store.
	ev := &req.Evidence
	ev.NICs, ev.Disks, ev.NoDriver = ev.NICs[:min(len(ev.NICs), 16)], ev.Disks[:min(len(ev.Disks), 32)], ev.NoDriver[:min(len(ev.NoDriver), 32)]
	if raw, err := json.Marshal(ev); err != nil || len(raw) > maxEvidence {
		return badRequest(api.CodeUsage, "enrol: evidence of %d bytes, at most %d", len(raw), maxEvidence)
	}
	return nil
}

// Enrol opens a boot session: identity, attempt, disk, order; all committed
// before the answer. cert is the digest of the client certificate's key, key
// itself goes into the certificate for the swarm.
func (e *Engine) Enrol(ctx context.Context, cert string, key ed25519.PublicKey, from netip.Addr, req *api.EnrolRequest) (api.EnrolReply, error) {
	if err := checkEnrol(req); err != nil {
		return api.EnrolReply{}, err
	}
	e.observe(ctx, req.Evidence)
	if req.Profile == api.ProfileEnrol {
		return e.enrolUnbound(ctx, cert, from, req)
	}
	host, s, why, err := e.lookup(ctx, req.Evidence)
	if err != nil {
		return api.EnrolReply{}, err
	}
	if why != "" {
		e.cfg.Log.Info("enrolment answered local", "host", host.Name, "ip", from.String(), "uuid", req.Evidence.UUID, "reason", why)
		return api.EnrolReply{Status: api.EnrolGoLocal, Host: host.Name, Room: host.Room, Reason: why}, nil
	}
	k := slotKey{s.Job, s.Host}
	if wait, why := e.contest(ctx, k, s, cert, req.BootID); why != "" {
		return api.EnrolReply{Status: api.EnrolGoLocal, Host: host.Name, Room: host.Room, Reason: why}, nil
	} else if wait {
		return e.onScreen(ctx, api.EnrolReply{Status: api.EnrolWait, Host: host.Name, Room: host.Room, Job: s.Job, RetryAfterS: rivalRetryS,
			Reason: "an earlier boot of this host was heard of a moment ago; waiting until it is silent"}, host.Room, host.Seat), nil
	}
	return e.open(ctx, k, cert, key, from, req)
}

// lookup resolves evidence to a host with a live slot; why says what is
// missing.
func (e *Engine) lookup(ctx context.Context, ev api.Evidence) (h api.Host, s *job.Slot, why string, err error) {
	var r inventory.Resolved
	err = e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		if r, err = inventory.ResolveEvidence(tx, ev, e.cfg.Self); err != nil {
			return err
		}
		if r.Verdict != inventory.Known {
			why = "this computer gets no order: " + r.Why
			return nil
		}
		h = r.Host
		if h.Exclude {
			why = "host " + h.Name + " is excluded from all jobs"
			return nil
		}
		_, s, err = hostSlot(tx, h.Name)
		if err != nil {
			return err
		}
		if s == nil || !s.Live() {
			why = "there is no job for host " + h.Name
		}
		return nil
	})
	if err == nil && r.Doubt != nil {
		e.askDoubt(ctx, r)
	}
	return h, s, why, err
}

// contest decides between a new boot and the one that holds the session: two
// boots of one identity must never be live at once.
func (e *Engine) contest(ctx context.Context, k slotKey, s *job.Slot, cert, bootID string) (wait bool, refused string) {
	if s.Session == nil || (s.Session.Cert == cert && s.Session.BootID == bootID) {
		return false, ""
	}
	now := time.Now()
	e.mu.Lock()
	heard := e.started
	if l := e.live[k]; l != nil && l.heard.After(heard) {
		heard = l.heard
	}
	r := e.rivals[k.host]
	silent := now.Sub(heard) >= e.cfg.Patience
	both := r != nil && r.bootID == bootID && heard.After(r.since.Add(rivalGrace))
	switch {
	case silent:
		delete(e.rivals, k.host)
	case both:
	case r == nil || r.bootID != bootID:
		if len(e.rivals) < maxRivals {
			e.rivals[k.host] = &rival{bootID: bootID, since: now}
		}
	}
	e.mu.Unlock()
	if silent {
		return false, ""
	}
	if !both {
		return true, ""
	}
	text := "two computers claim to be this host at the same time; the second one gets no order: look for a cloned UUID or a network card that was moved"
	if _, err := e.apply(ctx, k, job.Conflict{Text: text}); err != nil {
		e.cfg.Log.Error("conflict not stored", "host", k.host, "err", err)
	}
	e.quarantine(ctx, k.host, text)
	return false, text
}

// open commits the enrolment.
func (e *Engine) open(ctx context.Context, k slotKey, cert string, key ed25519.PublicKey, from netip.Addr, req *api.EnrolRequest) (api.EnrolReply, error) {
	orderID, issued := randomHex(), time.Now().UTC()
	lost := e.unconfirmed(k)
	out := outcome{}
	var host api.Host
	newDisk := (*api.Disk)(nil)
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		r, err := inventory.ResolveEvidence(tx, req.Evidence, e.cfg.Self)
		if err != nil {
			return err
		}
		if r.Verdict != inventory.Known || r.Host.Exclude || r.Host.Name != k.host {
			return conflict(api.CodeUnknownHost, "enrol: the inventory changed meanwhile; boot again")
		}
		if host, err = inventory.Confirm(tx, r.Host, req.Evidence, from.String(), issued); err != nil {
			return err
		}
		mk := func(tx store.Tx, j *job.Job, s *job.Slot) (job.Event, error) {
			ev, err := e.enrolEvent(tx, j, s, host, key, req, orderID, issued)
			if newDisk = nil; ev.Code == api.CodeDiskNew {
				newDisk = ev.Disk
			}
			ev.Session.Cert, ev.Session.IP, ev.Lost = cert, from.String(), lost
			return ev, err
		}
		out, err = applyTx(tx, k, mk, time.Now())
		if err == nil && newDisk != nil {
			err = askDisk(tx, host, *newDisk, issued)
		}
		return err
	})
	if err != nil {
		return api.EnrolReply{}, problem(err)
	}
	if out.wrote {
		e.mu.Lock()
		e.live[k] = &live{heard: time.Now(), moved: time.Now()}
		delete(e.rivals, k.host)
		delete(e.boots, host.MAC)
		e.mu.Unlock()
	}
	e.after(&out)
	reply := api.EnrolReply{Status: api.EnrolOK, Host: host.Name, Room: host.Room, Job: k.job, Image: out.job.Image + "/" + out.job.Version}
	if out.job.IsCapture() {
		reply.Image = "capture of " + out.job.Image
	}
	if e.cfg.Frames != "auto" {
		reply.Frames = e.cfg.Frames
	}
	if !out.slot.Live() {
		reply.Status, reply.Reason = api.EnrolGoLocal, out.slot.Error
	}
	return e.onScreen(ctx, reply, host.Room, host.Seat), nil
}

// unconfirmed returns what the last boot reported without a result.
func (e *Engine) unconfirmed(k slotKey) job.Counters {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.live[k]
	if l == nil {
		return job.Counters{}
	}
	p := l.progress
	return job.Counters{CellsWritten: p.CellsWritten, BytesFromSeed: p.BytesFromSeed, BytesFromPeers: p.BytesFromPeers, AgentRSSBytes: p.AgentRSSBytes}
}

// enrolEvent picks the disk and signs the order.
func (e *Engine) enrolEvent(tx store.Tx, j *job.Job, s *job.Slot, h api.Host, key ed25519.PublicKey, req *api.EnrolRequest, orderID string, issued time.Time) (job.Enrol, error) {
	ev := job.Enrol{Firmware: firmware(req.Evidence)}
	ev.Session = job.Session{BootID: req.BootID, Nonce: req.Nonce, PeerPort: req.PeerPort, LinkMbps: bootLink(req.Evidence), OrderID: orderID}
	req, err := withoutShared(tx, req)
	if err != nil {
		return ev, err
	}
	want, err := wanted(h, j.Disk)
	if err != nil {
		return ev, err
	}
	want.MinBytes, want.Sector, want.Replace, want.Own, want.Resume = j.MinBytes, j.Sector, j.Replace, j.Own, s.PONR
	want.Read = j.IsCapture()
	disk, fault := diskrule.Pick(req.Evidence.Disks, want)
	if fault != nil {
		ev.Code, ev.Text = fault.Code, fault.Text
		return ev, nil //nolint:nilerr // a disk that does not fit is the host's failure, not ours: the event carries it
	}
	ev.Disk = disk
	if ev.Code, ev.Text = swapped(h, *disk, want); ev.Code != "" {
		return ev, nil
	}
	if j.IsCapture() {
		return e.captureEvent(j, s, h, ev, req, issued)
	}
	floor, err := store.PeekSeq(tx, "fence")
	if err != nil {
		return ev, err
	}
	epoch, err := tx.Get(store.KeyEpoch)
	if err != nil {
		return ev, err
	}
	end := j.NotAfter
	if s.PONR {
		end = end.Add(j.Overrun)
	}
	swarm, err := e.member(j, s.Host, req.BootID, key)
	if err != nil {
		return ev, err
	}
	o := order.Order{
		V: 1, ID: orderID, ServerKeyID: e.keyID, IssuedAt: issued.Format(time.RFC3339), Job: j.ID, Attempt: s.Hard + 1,
		FenceEpoch: string(epoch), FenceFloor: floor,
		Host: hostID(h, req.Evidence), BootID: req.BootID, AgentNonce: req.Nonce, Disk: diskID(*disk), Replace: disk.Foreign,
		Image: order.ImageRef{Name: j.Image, Version: j.Version, ManifestDigest: j.ManifestDigest, MinDiskBytes: j.MinBytes, Sector: j.Sector},
		Scope: "disk", Mode: "delta", After: j.After, Personalise: personalise(j), Network: h.Network, Swarm: swarm,
		ExpiresAfterS: min(max(int64(end.Sub(issued)/time.Second), minOrderS), maxOrderS),
	}
	env, err := order.Sign(e.cfg.Key, order.TypeOrder, o)
	if err != nil {
		return ev, err
	}
	ev.Session.Floor = floor
	ev.Session.Order, err = json.Marshal(env)
	return ev, err
}

// personalise is a job's policy.
func personalise(j *job.Job) string {
	if j.Personal == "" {
		return order.PersonaliseRequire
	}
	return j.Personal
}

// bootLink is the speed of the interface a machine booted from, Mb/s; of its
// only wired one when it does not know which; 0 = unknown.
func bootLink(ev api.Evidence) int {
	for _, n := range ev.NICs {
		if n.Boot || len(ev.NICs) == 1 {
			return max(n.SpeedMbps, 0)
		}
	}
	return 0
}

// hostID lists the facts by which the machine knows itself. Junk is left out:
// it would match, or contradict, anybody.
func hostID(h api.Host, ev api.Evidence) order.HostID {
	id := order.HostID{Name: h.Name, Room: h.Room, UUID: h.UUID, MACs: []string{h.MAC}}
	if !ident.JunkSerial(ev.Serial) {
		id.Serial = ev.Serial
	}
	for _, n := range ev.NICs {
		if mac, err := ident.ParseMAC(n.MAC); err == nil && n.Bus != "usb" && !slices.Contains(id.MACs, mac) && len(id.MACs) < 8 {
			id.MACs = append(id.MACs, mac)
		}
	}
	return id
}

func diskID(d api.Disk) order.DiskID {
	return order.DiskID{WWN: d.WWN, Serial: d.Serial, Model: d.Model, Bytes: d.Bytes, Sector: d.Sector, Bus: d.Bus}
}

func firmware(ev api.Evidence) string {
	if ev.SecureBoot {
		return "secureboot"
	}
	return ev.Firmware
}

func randomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// session returns the job and slot of a client certificate, to be read only.
// Only the newest session of a slot counts.
func (e *Engine) session(ctx context.Context, cert string) (*job.Job, *job.Slot, error) {
	e.mu.Lock()
	k, ok := e.certs[cert]
	e.mu.Unlock()
	none := &api.Problem{Status: http.StatusConflict, Title: "no boot session", Code: api.CodeNoSession,
		Detail: "this boot holds no order here (another boot of the host took over, or the job is gone): boot again"}
	if !ok {
		return nil, nil, none
	}
	var j *job.Job
	var s *job.Slot
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		if j, err = e.decoded.job(tx, k.job); err != nil {
			return err
		}
		s, err = e.decoded.slot(tx, k)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if s.Session == nil || s.Session.Cert != cert {
		return nil, nil, none
	}
	return j, s, nil
}

// Order returns the signed order of a session: the same bytes however often.
func (e *Engine) Order(ctx context.Context, cert string) (json.RawMessage, error) {
	_, s, err := e.session(ctx, cert)
	if err != nil {
		return nil, err
	}
	if !s.Live() || s.Session.Order == nil {
		return nil, conflict(api.CodeNoOrder, "no order: the host is %s in job %d. %s", s.State, s.Job, s.Error)
	}
	return s.Session.Order, nil
}

// ImageFile returns a small file of the ordered version, nil when that version
// has no such file.
func (e *Engine) ImageFile(ctx context.Context, cert, file string) ([]byte, error) {
	j, _, err := e.session(ctx, cert)
	if err != nil {
		return nil, err
	}
	if j.IsCapture() {
		return nil, conflict(api.CodeNoOrder, "a capture has no image to fetch")
	}
	raw, err := e.cfg.Images.File(j.Image, j.Version, file)
	if err != nil {
		return nil, fmt.Errorf("read %s of image %s/%s: %w", file, j.Image, j.Version, err)
	}
	return raw, nil
}
