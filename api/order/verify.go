package order

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Reason says which rule refused an order; tests and the report name it.
type Reason string

// The rules, in the order in which they are applied.
const (
	BadSize      Reason = "size"
	BadEnvelope  Reason = "envelope"
	UnknownKey   Reason = "key"
	BadSignature Reason = "signature"
	BadPayload   Reason = "payload"
	BadVersion   Reason = "version"
	WrongNonce   Reason = "nonce"
	WrongBoot    Reason = "boot_id"
	WrongHost    Reason = "host"
	WrongImage   Reason = "image"
	WrongDisk    Reason = "disk"
	WrongSector  Reason = "sector"
	TooSmall     Reason = "capacity"
	Expired      Reason = "expired"
	WrongOrder   Reason = "order_id"
	StaleFence   Reason = "fence"
	WrongPlan    Reason = "plan"
)

// RefusedError says why an order or a commence was not accepted. Nothing was
// written.
type RefusedError struct {
	Rule   Reason
	Detail string
}

// Error names the rule and the two values that differ.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("order refused (%s): %s", e.Rule, e.Detail)
}

func refuse(rule Reason, format string, args ...any) error {
	return &RefusedError{Rule: rule, Detail: fmt.Sprintf(format, args...)}
}

// Facts are what the agent knows of itself in this boot.
type Facts struct {
	Keys       []ed25519.PublicKey // pinned server keys
	BootID     string
	Nonce      string
	UUID       string
	UUIDSwap   string // the UUID with its first three fields in the other byte order
	MACs       []string
	Serial     string
	Disk       DiskID        // the disk the agent's target rule found
	ReceivedAt time.Duration // monotonic time of receipt, since boot
}

// Verified is an order that passed every rule for this boot. Its zero value is
// refused everywhere.
type Verified struct {
	o        Order
	deadline time.Duration // monotonic, since boot
	keys     []ed25519.PublicKey
	ok       bool
}

// Order returns a copy of the verified order.
func (v *Verified) Order() Order { return v.o }

// Deadline is the moment, in monotonic time since boot, after which the order
// can no longer be cleared.
func (v *Verified) Deadline() time.Duration { return v.deadline }

// Cleared proves that a verified order was commenced. Only Clear makes one.
type Cleared struct {
	o     Order
	fence uint64
	ok    bool
}

// Valid reports whether c was made by Clear.
func (c Cleared) Valid() bool { return c.ok }

// Order returns a copy of the order that was cleared.
func (c Cleared) Order() Order { return c.o }

// Fence returns the number of this commence.
func (c Cleared) Fence() uint64 { return c.fence }

// ParseEnvelope reads an envelope from untrusted bytes: size, strict JSON.
func ParseEnvelope(raw []byte) (*Envelope, error) {
	if len(raw) > MaxEnvelope {
		return nil, refuse(BadSize, "%d bytes, at most %d", len(raw), MaxEnvelope)
	}
	var env Envelope
	if err := strict(raw, &env); err != nil {
		return nil, refuse(BadEnvelope, "%v", err)
	}
	return &env, nil
}

// open checks type, key and signature and returns the signed bytes.
func open(env *Envelope, typ string, keys []ed25519.PublicKey) ([]byte, error) {
	if env == nil || env.Type != typ {
		return nil, refuse(BadEnvelope, "type is not %s", typ)
	}
	if len(env.Payload) > MaxEnvelope {
		return nil, refuse(BadSize, "payload of %d bytes", len(env.Payload))
	}
	var pub ed25519.PublicKey
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize && KeyID(k) == env.KeyID {
			pub = k
		}
	}
	if pub == nil {
		return nil, refuse(UnknownKey, "signed by key %q, which is not pinned in this initramfs", env.KeyID)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(env.Payload)
	if err != nil {
		return nil, refuse(BadEnvelope, "payload: %v", err)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(env.Sig)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, refuse(BadEnvelope, "signature is not %d bytes of base64", ed25519.SignatureSize)
	}
	if !ed25519.Verify(pub, signed(typ, payload), sig) {
		return nil, refuse(BadSignature, "key %s did not sign these bytes", env.KeyID)
	}
	return payload, nil
}

// Verify applies every rule of an order in this boot. The disk and the image
// are compared here too, so that a Verified order names exactly what will be
// written. manifestDigest is the hex SHA-256 of the manifest whose signature
// the caller has checked with the image key.
func Verify(env *Envelope, f Facts, manifestDigest string) (*Verified, error) {
	o, err := Peek(env, f)
	if err != nil {
		return nil, err
	}
	if o.Image.ManifestDigest == "" || o.Image.ManifestDigest != manifestDigest {
		return nil, refuse(WrongImage, "order names manifest %s, verified manifest is %s", o.Image.ManifestDigest, manifestDigest)
	}
	if err := matchDisk(o, f.Disk); err != nil {
		return nil, err
	}
	if o.ExpiresAfterS <= 0 || o.ExpiresAfterS > 7*24*3600 {
		return nil, refuse(Expired, "life of %d s is out of range", o.ExpiresAfterS)
	}
	return &Verified{
		o:        *o,
		deadline: f.ReceivedAt + time.Duration(o.ExpiresAfterS)*time.Second,
		keys:     f.Keys,
		ok:       true,
	}, nil
}

// Peek applies the rules that need neither manifest nor disk. What it returns
// allows nothing: it tells the agent which manifest to fetch and which disk to
// look for.
func Peek(env *Envelope, f Facts) (*Order, error) {
	payload, err := open(env, TypeOrder, f.Keys)
	if err != nil {
		return nil, err
	}
	var o Order
	if err := strict(payload, &o); err != nil {
		return nil, refuse(BadPayload, "%v", err)
	}
	switch {
	case o.V != 1 || o.ID == "" || o.FenceEpoch == "" || o.Scope != "disk" || o.Mode != "delta":
		return nil, refuse(BadVersion, "version %d, scope %q, mode %q: this agent knows version 1, scope disk, mode delta", o.V, o.Scope, o.Mode)
	case o.After != "reboot" && o.After != "poweroff":
		return nil, refuse(BadVersion, "unknown end %q", o.After)
	case o.Personalise != PersonaliseRequire && o.Personalise != PersonaliseTry && o.Personalise != PersonaliseOff:
		return nil, refuse(BadVersion, "unknown personalise %q", o.Personalise)
	}
	if o.Network != nil {
		if err := o.Network.Check(); err != nil {
			return nil, refuse(BadPayload, "fixed address: %v", err)
		}
	}
	if err := matchBoot(env, o.ServerKeyID, o.AgentNonce, o.BootID, f); err != nil {
		return nil, err
	}
	return &o, matchHost(o.Host, f)
}

// matchHost wants two of the machine's own facts to agree and none to
// contradict; a machine without UUID and serial can bring no second fact, so
// its MAC alone must do.
func matchHost(h HostID, f Facts) error {
	matches, possible := 0, 0
	if h.UUID != "" && f.UUID != "" {
		possible++
		if h.UUID != f.UUID && h.UUID != f.UUIDSwap {
			return refuse(WrongHost, "order is for UUID %s, this machine is %s", h.UUID, f.UUID)
		}
		matches++
	}
	if h.Serial != "" && f.Serial != "" {
		possible++
		if !strings.EqualFold(h.Serial, f.Serial) {
			return refuse(WrongHost, "order is for serial %q, this machine is %q", h.Serial, f.Serial)
		}
		matches++
	}
	mac := false
	for _, a := range h.MACs {
		for _, b := range f.MACs {
			mac = mac || (a != "" && strings.EqualFold(a, b))
		}
	}
	if mac {
		matches++
	}
	if matches >= 2 || (mac && possible == 0) {
		return nil
	}
	return refuse(WrongHost, "order is for %s (%s), too few facts of this machine agree", h.Name, strings.Join(h.MACs, " "))
}

func matchDisk(o *Order, d DiskID) error {
	if err := matchIdentity(o.Disk, d); err != nil {
		return err
	}
	switch {
	case o.Disk.Sector != d.Sector || o.Image.Sector != d.Sector:
		return refuse(WrongSector, "image has %d-byte sectors, order says %d, the disk has %d", o.Image.Sector, o.Disk.Sector, d.Sector)
	case d.Bytes < o.Image.MinDiskBytes || o.Image.MinDiskBytes <= 0:
		return refuse(TooSmall, "the disk has %d bytes, the image needs %d", d.Bytes, o.Image.MinDiskBytes)
	}
	return nil
}

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Clear applies a commence to a verified order. now is monotonic time since
// boot; planDigest is what PlanDigest returned for the agent's own plan.
func (v *Verified) Clear(env *Envelope, planDigest string, now time.Duration) (Cleared, error) {
	if v == nil || !v.ok {
		return Cleared{}, refuse(WrongOrder, "no verified order")
	}
	payload, err := open(env, TypeCommence, v.keys)
	if err != nil {
		return Cleared{}, err
	}
	var c Commence
	if err := strict(payload, &c); err != nil {
		return Cleared{}, refuse(BadPayload, "%v", err)
	}
	switch {
	case env.KeyID != v.o.ServerKeyID:
		return Cleared{}, refuse(UnknownKey, "commence signed by %s, order by %s", env.KeyID, v.o.ServerKeyID)
	case c.OrderID != v.o.ID:
		return Cleared{}, refuse(WrongOrder, "commence is for order %s", c.OrderID)
	case c.AgentNonce != v.o.AgentNonce || c.BootID != v.o.BootID:
		return Cleared{}, refuse(WrongNonce, "commence is not of this boot")
	case c.FenceEpoch != v.o.FenceEpoch || c.Fence <= v.o.FenceFloor:
		return Cleared{}, refuse(StaleFence, "fence %d of epoch %s, wanted more than %d of %s", c.Fence, c.FenceEpoch, v.o.FenceFloor, v.o.FenceEpoch)
	case planDigest == "" || c.PlanDigest != planDigest:
		return Cleared{}, refuse(WrongPlan, "the server agreed to another plan")
	case now > v.deadline:
		return Cleared{}, refuse(Expired, "the order ran out %s ago", now-v.deadline)
	}
	return Cleared{o: v.o, fence: c.Fence, ok: true}, nil
}

// strict decodes exactly one JSON object: unknown fields, duplicate keys,
// trailing data and other letter cases of a name are errors.
func strict(raw []byte, into any) error {
	if err := noDuplicates(raw); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	// encoding/json matches names without regard to case; what it read must
	// come out again under the very same names.
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	return sameKeys(raw, again)
}
