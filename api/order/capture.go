package order

import (
	"strings"
	"time"
)

// TypeCapture is the type of an order to read a disk. It is a domain of its own: Verify refuses such an envelope, so
// that nothing it says can ever become a Cleared.
const TypeCapture = "labswarm/capture/v1"

// Capture is the instruction for one host in one boot to read one disk and send its cells. It holds no permission to
// write, and no commence can be made for it.
type Capture struct {
	V             int      `json:"v"` // 1
	ID            string   `json:"order_id"`
	ServerKeyID   string   `json:"server_key_id"`
	IssuedAt      string   `json:"issued_at"` // for the log only: no clock is trusted
	Job           uint64   `json:"job_id"`
	Attempt       int      `json:"attempt"`
	Host          HostID   `json:"host"`
	BootID        string   `json:"boot_id"`
	AgentNonce    string   `json:"agent_nonce"`
	Disk          DiskID   `json:"disk"`
	Image         string   `json:"image"` // name of the image that is made
	Force         []string `json:"force"` // guards that the admin overrides, by name
	After         string   `json:"after"` // reboot, poweroff
	ExpiresAfterS int64    `json:"expires_after_s"`
}

// Reading is a capture order that passed every rule for this boot: the key to a disk that is opened for reading. Only
// VerifyCapture makes one; its zero value is refused everywhere.
type Reading struct {
	c        Capture
	deadline time.Duration // monotonic, since boot
	ok       bool
}

// Valid reports whether r was made by VerifyCapture.
func (r Reading) Valid() bool { return r.ok }

// Order returns a copy of the verified order.
func (r Reading) Order() Capture { return r.c }

// Deadline is the moment, in monotonic time since boot, after which the order is worth nothing.
func (r Reading) Deadline() time.Duration { return r.deadline }

// VerifyCapture applies every rule of a capture order in this boot; f.Disk is the disk that the agent's target rule
// found.
func VerifyCapture(env *Envelope, f Facts) (Reading, error) {
	c, err := PeekCapture(env, f)
	if err != nil {
		return Reading{}, err
	}
	if err := matchIdentity(c.Disk, f.Disk); err != nil {
		return Reading{}, err
	}
	if c.Disk.Sector != f.Disk.Sector {
		return Reading{}, refuse(WrongSector, "order says %d-byte sectors, the disk has %d", c.Disk.Sector, f.Disk.Sector)
	}
	if c.ExpiresAfterS <= 0 || c.ExpiresAfterS > 7*24*3600 {
		return Reading{}, refuse(Expired, "life of %d s is out of range", c.ExpiresAfterS)
	}
	return Reading{c: *c, deadline: f.ReceivedAt + time.Duration(c.ExpiresAfterS)*time.Second, ok: true}, nil
}

// PeekCapture applies the rules that need no disk. What it returns allows nothing: it tells the agent which disk to
// look for.
func PeekCapture(env *Envelope, f Facts) (*Capture, error) {
	payload, err := open(env, TypeCapture, f.Keys)
	if err != nil {
		return nil, err
	}
	var c Capture
	if err := strict(payload, &c); err != nil {
		return nil, refuse(BadPayload, "%v", err)
	}
	switch {
	case c.V != 1 || c.ID == "" || c.Image == "":
		return nil, refuse(BadVersion, "version %d of image %q: this agent knows version 1", c.V, c.Image)
	case c.After != "reboot" && c.After != "poweroff":
		return nil, refuse(BadVersion, "unknown end %q", c.After)
	}
	if err := matchBoot(env, c.ServerKeyID, c.AgentNonce, c.BootID, f); err != nil {
		return nil, err
	}
	return &c, matchHost(c.Host, f)
}

// matchBoot wants an order of the key that signed it, for this boot.
func matchBoot(env *Envelope, key, nonce, boot string, f Facts) error {
	switch {
	case key != env.KeyID:
		return refuse(UnknownKey, "order names key %q, envelope %q", key, env.KeyID)
	case f.Nonce == "" || nonce != f.Nonce:
		return refuse(WrongNonce, "the nonce is not of this boot")
	case f.BootID == "" || boot != f.BootID:
		return refuse(WrongBoot, "order is for boot %q", boot)
	}
	return nil
}

// matchIdentity wants the disk that is named, by WWN, else serial, else model, and of the same size and bus.
func matchIdentity(want, d DiskID) error {
	if want.WWN != "" && !strings.EqualFold(want.WWN, d.WWN) ||
		want.WWN == "" && !strings.EqualFold(want.Serial, d.Serial) ||
		want.Bytes != d.Bytes || want.Bus != d.Bus ||
		want.WWN == "" && want.Serial == "" && want.Model != d.Model {
		return refuse(WrongDisk, "order names %s %q %d bytes on %s, found %s %q %d bytes on %s",
			want.Model, firstNonEmpty(want.Serial, want.WWN), want.Bytes, want.Bus,
			d.Model, firstNonEmpty(d.Serial, d.WWN), d.Bytes, d.Bus)
	}
	return nil
}
