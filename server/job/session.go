package job

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"time"

	"labswarm/api"
)

// enrol opens a new boot session: the hard attempt counter's event.
func (c *change) enrol(e Enrol) error {
	s := &c.s
	if same := s.Session; same != nil && same.BootID == e.Session.BootID && same.Cert == e.Session.Cert && Active(s.State) {
		return nil // a repeated enrolment: same boot, same answer
	}
	if !s.Live() || s.State == api.StatePending || (s.State == api.StateHeld && !Resumable(s)) {
		return &RefusedError{Code: api.CodeNoOrder, Text: fmt.Sprintf("no order: the host is %s in job %d", s.State, s.Job)}
	}
	if err := c.j.Admits(s.PONR, c.now); err != nil {
		return err
	}
	if s.Hard >= c.j.MaxHard {
		c.exhausted()
		return nil
	}
	s.Hard++
	s.Code, s.Error, s.ReadOut = "", "", ""
	if s.Session != nil && s.Session.Result == "" {
		s.Counters.CellsWritten += e.Lost.CellsWritten
		s.Counters.BytesFromSeed += e.Lost.BytesFromSeed
		s.Counters.BytesFromPeers += e.Lost.BytesFromPeers
		s.Counters.AgentRSSBytes = max(s.Counters.AgentRSSBytes, e.Lost.AgentRSSBytes)
	}
	session := e.Session
	s.Session, s.Firmware, s.Disk = &session, e.Firmware, e.Disk
	if e.Code != "" {
		c.fail(e.Code, e.Text)
		return nil
	}
	c.to(api.StateEnrolled, fmt.Sprintf("agent up, attempt %d of %d, disk %s", s.Hard, c.j.MaxHard, diskText(e.Disk)))
	return nil
}

func diskText(d *api.Disk) string {
	if d == nil {
		return "?"
	}
	id := d.Serial
	if id == "" {
		id = d.WWN
	}
	return fmt.Sprintf("%s %s %d bytes", d.Model, id, d.Bytes)
}

// mine checks that a message belongs to the session of the slot.
func (s *Slot) mine(bootID, cert string) error {
	if s.Session == nil || s.Session.BootID != bootID || (cert != "" && s.Session.Cert != cert) {
		return &RefusedError{Code: api.CodeNoSession, Text: "this boot is not the one that holds the order: boot again"}
	}
	return nil
}

// report follows the agent's own word. It can never pass commence: that is
// what Commence is for.
func (c *change) report(e Report) error {
	s := &c.s
	if err := s.mine(e.BootID, ""); err != nil {
		return err
	}
	if s.capture() {
		return c.reportCapture(e)
	}
	from := s.State
	if from == api.StateHeld && !s.Silence {
		return nil // a person decides
	}
	// A boot request that was not ours (or a forged one) may have taken the
	// host back; the agent that holds the session outranks it.
	resumed := from == api.StateBooting || from == api.StateArmed || from == api.StateHeld
	if !Active(from) && !resumed {
		return nil
	}
	if wrote(e.State) != (s.Session.Fence != 0) {
		if wrote(e.State) {
			return &RefusedError{Code: api.CodeStaleFence, Text: fmt.Sprintf("the agent reports %s without a commence", e.State)}
		}
		return nil // a late report from before the commence
	}
	if e.State == from || !Active(e.State) || (from == api.StateChecking && e.State == api.StateEnrolled) {
		return nil
	}
	why := e.Detail
	if why == "" {
		why = "reported by the agent"
	}
	if resumed {
		s.Code, s.Error = "", ""
		why = "the agent is heard of again"
	}
	c.to(e.State, why)
	return nil
}

// CommenceVerdict says whether a commence may be granted: the pure rule of
// control.md 2.1, in the order in which a person would ask.
func CommenceVerdict(j *Job, s *Slot, e Commence, now time.Time) error {
	if err := s.mine(e.BootID, e.Cert); err != nil {
		return err
	}
	stale := func(format string, a ...any) error {
		return &RefusedError{Code: api.CodeStaleFence, Text: fmt.Sprintf(format, a...)}
	}
	switch {
	case j.IsCapture() || s.capture():
		return stale("a capture never writes")
	case e.OrderID == "" || e.OrderID != s.Session.OrderID:
		return stale("order %q is not the order of this boot", e.OrderID)
	case s.Session.Fence != 0:
		return stale("order %s was used by fence %d", e.OrderID, s.Session.Fence)
	case s.State != api.StateChecking && s.State != api.StateEnrolled:
		return stale("the host is %s, not CHECKING", s.State)
	case e.Fence <= s.Session.Floor:
		return stale("fence %d is not above %d", e.Fence, s.Session.Floor)
	case e.PlanDigest == "":
		return stale("the request names no plan")
	}
	if err := j.Admits(s.PONR, now); err != nil {
		return err
	}
	return j.fits(s.PONR, e.Needs, now)
}

// commence is the point of no return.
func (c *change) commence(e Commence) error {
	if err := CommenceVerdict(c.j, &c.s, e, c.now); err != nil {
		return err
	}
	s := &c.s
	if s.State == api.StateEnrolled { // the report of CHECKING was lost or is still under way
		c.to(api.StateChecking, "known from its request to commence")
	}
	session := *s.Session
	session.Fence, session.PlanDigest, session.Commence = e.Fence, e.PlanDigest, e.Envelope
	s.Session, s.PONR = &session, true
	c.to(api.StateWriting, fmt.Sprintf("commence, fence %d: %d cells to write, %d to zero, %d kept (from here the old content is given up)",
		e.Fence, e.Plan.CellsWrite, e.Plan.CellsZero, e.Plan.CellsKeep))
	return nil
}

// result ends the work of an agent. DONE needs the digest that the manifest
// says a right disk has.
func (c *change) result(e Done) error {
	s, r := &c.s, e.Result
	if err := s.mine(r.BootID, e.Cert); err != nil {
		return err
	}
	if s.Session.Result != "" {
		if s.Session.Result == e.Digest {
			return nil // repeated: same result, same answer
		}
		return &RefusedError{Code: api.CodeStaleFence, Text: "another result of this boot was accepted already"}
	}
	if !s.Live() || r.OrderID != s.Session.OrderID || r.Fence != s.Session.Fence {
		return &RefusedError{Code: api.CodeStaleFence, Text: fmt.Sprintf("result of order %s, fence %d does not fit the host's state %s", r.OrderID, r.Fence, s.State)}
	}
	session := *s.Session
	session.Result = e.Digest
	s.Session = &session
	s.count(r)
	if s.State == api.StateHeld && !s.Silence {
		s.note(c.now, "a result came while the host was held")
	}
	switch {
	case !r.OK:
		code, text := r.Code, r.Error
		if code == "" {
			code = api.CodeInternal
		}
		if text == "" {
			text = "the agent gave no reason"
		}
		if code == api.CodePersonalise && r.Readback != "" && r.Readback == c.j.Readback {
			s.note(c.now, "read back and equal to the image before that: a new job has next to nothing to write")
		}
		c.fail(code, text)
		if shown, ok := api.CheckReadOut(r.ReadOut); ok && strings.HasPrefix(shown, code+"-") {
			s.ReadOut = shown
		}
	case r.Fence == 0 || !s.PONR:
		c.fail(api.CodeBadOrder, "the agent reports success without a commence")
	case r.Readback == "" || r.Readback != c.j.Readback:
		c.fail(api.CodeVerify, "the disk reads back as "+clip(r.Readback)+", the image is "+c.j.Readback)
	default:
		s.Verified, s.Code, s.Error = true, "", ""
		c.to(api.StateDone, fmt.Sprintf("read back and equal to the image: %d cells written, %d kept, %d zeroed", r.CellsWritten, r.CellsKept, r.CellsZeroed))
		c.identity(r)
	}
	return nil
}

const (
	maxWarnings = 8 // of one result that are kept
	maxHostKeys = 4
)

// hostKey is one line of an authorized_keys file without its comment; an RSA key
// of 3072 bits has 544 characters.
var hostKey = regexp.MustCompile(`^(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/]{40,1000}={0,2}$`)

// identity keeps what the agent says of the host's new identity.
func (c *change) identity(r api.Result) {
	s := &c.s
	s.Warnings, s.HostKeys = nil, nil
	for _, w := range r.Warnings[:min(len(r.Warnings), maxWarnings)] {
		s.Warnings = append(s.Warnings, clip(w))
		c.warn("finalise", w)
	}
	for _, k := range r.HostKeys[:min(len(r.HostKeys), maxHostKeys)] {
		if !hostKey.MatchString(k) {
			continue
		}
		s.HostKeys = append(s.HostKeys, k)
		s.note(c.now, "SSH host key "+Fingerprint(k))
	}
}

// Fingerprint is an SSH key's as ssh-keygen -l prints it; "" for what is none.
func Fingerprint(key string) string {
	kind, blob, _ := strings.Cut(key, " ")
	raw, err := base64.StdEncoding.DecodeString(blob)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return kind + " SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

func (s *Slot) count(r api.Result) {
	n := &s.Counters
	n.CellsWritten += max(r.CellsWritten, 0)
	n.CellsKept = max(r.CellsKept, 0)
	n.BytesFromSeed += max(r.BytesFromSeed, 0)
	n.BytesFromPeers += max(r.BytesFromPeers, 0)
	n.AgentRSSBytes = max(n.AgentRSSBytes, r.AgentRSSBytes)
}
