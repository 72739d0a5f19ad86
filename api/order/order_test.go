package order

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

var (
	testKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	otherKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
)

const digest = "aa11"

func goodOrder() Order {
	return Order{
		V: 1, ID: "o1", ServerKeyID: KeyID(testKey.Public().(ed25519.PublicKey)), Job: 3, Attempt: 1,
		FenceEpoch: "e1", FenceFloor: 7,
		Host:   HostID{Name: "pc1", UUID: "00112233-4455-6677-8899-aabbccddeeff", MACs: []string{"52:54:00:00:00:01"}, Serial: "S1"},
		BootID: "b1", AgentNonce: "n1",
		Disk:  DiskID{Serial: "D1", Model: "QEMU", Bytes: 8 << 30, Sector: 512, Bus: "virtio"},
		Image: ImageRef{Name: "deb", Version: "2026-11-20.1", ManifestDigest: digest, MinDiskBytes: 6 << 30, Sector: 512},
		Scope: "disk", Mode: "delta", After: "reboot", Personalise: PersonaliseRequire, ExpiresAfterS: 600,
	}
}

func goodFacts() Facts {
	return Facts{
		Keys:   []ed25519.PublicKey{testKey.Public().(ed25519.PublicKey)},
		BootID: "b1", Nonce: "n1",
		UUID: "00112233-4455-6677-8899-aabbccddeeff", UUIDSwap: "33221100-5544-7766-8899-aabbccddeeff",
		MACs: []string{"52:54:00:00:00:01"}, Serial: "s1",
		Disk:       DiskID{Serial: "d1", Model: "QEMU", Bytes: 8 << 30, Sector: 512, Bus: "virtio"},
		ReceivedAt: time.Minute,
	}
}

func ruleOf(t *testing.T, err error) Reason {
	t.Helper()
	var r *RefusedError
	if !errors.As(err, &r) {
		t.Fatalf("error %v is not a RefusedError", err)
	}
	return r.Rule
}

func sign(t *testing.T, key ed25519.PrivateKey, typ string, v any) *Envelope {
	t.Helper()
	env, err := Sign(key, typ, v)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestVerifyAcceptsGoodOrder(t *testing.T) {
	v, err := Verify(sign(t, testKey, TypeOrder, goodOrder()), goodFacts(), digest)
	if err != nil {
		t.Fatalf("Verify(good order) = %v; want nil", err)
	}
	if got, want := v.Deadline(), 11*time.Minute; got != want {
		t.Errorf("Deadline() = %v; want %v", got, want)
	}
	f := goodFacts()
	f.UUID, f.UUIDSwap = f.UUIDSwap, f.UUID
	if _, err := Verify(sign(t, testKey, TypeOrder, goodOrder()), f, digest); err != nil {
		t.Errorf("Verify with the UUID in the other byte order = %v; want nil", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	tests := []struct {
		name  string
		rule  Reason
		order func(*Order)
		facts func(*Facts)
		env   func(*Envelope)
	}{
		{name: "unknown key", rule: UnknownKey, facts: func(f *Facts) { f.Keys = []ed25519.PublicKey{otherKey.Public().(ed25519.PublicKey)} }},
		{name: "no pins", rule: UnknownKey, facts: func(f *Facts) { f.Keys = nil }},
		{name: "key id of another key", rule: UnknownKey, order: func(o *Order) { o.ServerKeyID = "ffff" }},
		{name: "commence played as order", rule: BadEnvelope, env: func(e *Envelope) { e.Type = TypeCommence }},
		{name: "flipped payload", rule: BadSignature, env: func(e *Envelope) {
			raw, _ := base64.StdEncoding.DecodeString(e.Payload)
			raw[20] ^= 1
			e.Payload = base64.StdEncoding.EncodeToString(raw)
		}},
		{name: "short signature", rule: BadEnvelope, env: func(e *Envelope) { e.Sig = e.Sig[:8] }},
		{name: "version 2", rule: BadVersion, order: func(o *Order) { o.V = 2 }},
		{name: "scope", rule: BadVersion, order: func(o *Order) { o.Scope = "partition" }},
		{name: "end", rule: BadVersion, order: func(o *Order) { o.After = "explode" }},
		{name: "policy", rule: BadVersion, order: func(o *Order) { o.Personalise = "" }},
		{name: "replayed after reboot", rule: WrongNonce, facts: func(f *Facts) { f.Nonce = "n2" }},
		{name: "empty nonce", rule: WrongNonce, order: func(o *Order) { o.AgentNonce = "" }, facts: func(f *Facts) { f.Nonce = "" }},
		{name: "other boot", rule: WrongBoot, facts: func(f *Facts) { f.BootID = "b2" }},
		{name: "other machine", rule: WrongHost, facts: func(f *Facts) { f.UUID, f.UUIDSwap = "x", "y" }},
		{name: "other serial", rule: WrongHost, facts: func(f *Facts) { f.Serial = "S2" }},
		{name: "only a MAC though it has a UUID of its own", rule: WrongHost, order: func(o *Order) { o.Host.UUID, o.Host.Serial = "", "" }, facts: func(f *Facts) { f.MACs = []string{"other"} }},
		{name: "other manifest", rule: WrongImage, order: func(o *Order) { o.Image.ManifestDigest = "bb" }},
		{name: "no manifest", rule: WrongImage, order: func(o *Order) { o.Image.ManifestDigest = "" }},
		{name: "swapped disk", rule: WrongDisk, facts: func(f *Facts) { f.Disk.Serial = "D2" }},
		{name: "WWN wins over serial", rule: WrongDisk, order: func(o *Order) { o.Disk.WWN = "w1" }},
		{name: "other size", rule: WrongDisk, facts: func(f *Facts) { f.Disk.Bytes++ }},
		{name: "other bus", rule: WrongDisk, facts: func(f *Facts) { f.Disk.Bus = "usb" }},
		{name: "nameless disk of another model", rule: WrongDisk, order: func(o *Order) { o.Disk.Serial = "" }, facts: func(f *Facts) { f.Disk.Serial, f.Disk.Model = "", "X" }},
		{name: "4Kn disk", rule: WrongSector, order: func(o *Order) { o.Disk.Sector = 4096 }, facts: func(f *Facts) { f.Disk.Sector = 4096 }},
		{name: "too small", rule: TooSmall, order: func(o *Order) { o.Image.MinDiskBytes = 9 << 30 }},
		{name: "no minimum", rule: TooSmall, order: func(o *Order) { o.Image.MinDiskBytes = 0 }},
		{name: "no expiry", rule: Expired, order: func(o *Order) { o.ExpiresAfterS = 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, f := goodOrder(), goodFacts()
			if tt.order != nil {
				tt.order(&o)
			}
			if tt.facts != nil {
				tt.facts(&f)
			}
			env := sign(t, testKey, TypeOrder, o)
			if tt.env != nil {
				tt.env(env)
			}
			v, err := Verify(env, f, digest)
			if v != nil || ruleOf(t, err) != tt.rule {
				t.Errorf("Verify = %v, %v; want rule %s", v, err, tt.rule)
			}
		})
	}
}

func TestMachineWithoutUUIDNeedsItsMAC(t *testing.T) {
	o, f := goodOrder(), goodFacts()
	o.Host.UUID, o.Host.Serial = "", ""
	f.UUID, f.UUIDSwap, f.Serial = "", "", ""
	if _, err := Verify(sign(t, testKey, TypeOrder, o), f, digest); err != nil {
		t.Errorf("machine without UUID, MAC equal: %v; want accepted", err)
	}
}

func TestStrictPayload(t *testing.T) {
	good, err := json.Marshal(goodOrder())
	if err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string]string{
		"unknown field":  strings.Replace(string(good), `{"v":1`, `{"force":true,"v":1`, 1),
		"duplicate":      strings.Replace(string(good), `{"v":1`, `{"v":2,"v":1`, 1),
		"other case":     strings.Replace(string(good), `"scope"`, `"Scope"`, 1),
		"trailing":       string(good) + "{}",
		"out of range":   strings.Replace(string(good), `"job_id":3`, `"job_id":-3`, 1),
		"not an object":  `[]`,
		"wrong type":     strings.Replace(string(good), `"v":1`, `"v":"1"`, 1),
		"nested too far": strings.Repeat(`{"a":`, 30) + "1" + strings.Repeat("}", 30),
	} {
		env := &Envelope{Type: TypeOrder, KeyID: KeyID(testKey.Public().(ed25519.PublicKey)),
			Payload: base64.StdEncoding.EncodeToString([]byte(payload)),
			Sig:     base64.StdEncoding.EncodeToString(ed25519.Sign(testKey, signed(TypeOrder, []byte(payload))))}
		if _, err := Verify(env, goodFacts(), digest); err == nil || ruleOf(t, err) != BadPayload {
			t.Errorf("%s: Verify = %v; want rule payload", name, err)
		}
	}
}

func TestClear(t *testing.T) {
	v, err := Verify(sign(t, testKey, TypeOrder, goodOrder()), goodFacts(), digest)
	if err != nil {
		t.Fatal(err)
	}
	good := Commence{OrderID: "o1", BootID: "b1", AgentNonce: "n1", FenceEpoch: "e1", Fence: 8, PlanDigest: "p"}
	c, err := v.Clear(sign(t, testKey, TypeCommence, good), "p", 2*time.Minute)
	if err != nil || !c.Valid() || c.Fence() != 8 {
		t.Fatalf("Clear(good) = %+v, %v; want valid with fence 8", c, err)
	}
	for _, tt := range []struct {
		name string
		rule Reason
		c    func(*Commence)
		key  ed25519.PrivateKey
		typ  string
		plan string
		now  time.Duration
	}{
		{name: "other order", rule: WrongOrder, c: func(c *Commence) { c.OrderID = "o2" }},
		{name: "other boot", rule: WrongNonce, c: func(c *Commence) { c.BootID = "b2" }},
		{name: "replay", rule: WrongNonce, c: func(c *Commence) { c.AgentNonce = "n0" }},
		{name: "old fence", rule: StaleFence, c: func(c *Commence) { c.Fence = 7 }},
		{name: "other epoch", rule: StaleFence, c: func(c *Commence) { c.FenceEpoch = "e2" }},
		{name: "other plan", rule: WrongPlan, c: func(c *Commence) { c.PlanDigest = "q" }},
		{name: "no plan", rule: WrongPlan, c: func(c *Commence) { c.PlanDigest = "" }, plan: "-"},
		{name: "late", rule: Expired, now: 12 * time.Minute},
		{name: "other key", rule: UnknownKey, key: otherKey},
		{name: "order played as commence", rule: BadEnvelope, typ: TypeOrder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad, key, typ, plan, now := good, testKey, TypeCommence, "p", 2*time.Minute
			if tt.c != nil {
				tt.c(&bad)
			}
			if tt.key != nil {
				key = tt.key
			}
			if tt.typ != "" {
				typ = tt.typ
			}
			if tt.plan == "-" {
				plan = ""
			}
			if tt.now != 0 {
				now = tt.now
			}
			c, err := v.Clear(sign(t, key, typ, bad), plan, now)
			if c.Valid() || ruleOf(t, err) != tt.rule {
				t.Errorf("Clear = valid %v, %v; want rule %s", c.Valid(), err, tt.rule)
			}
		})
	}
	var zero *Verified
	if c, err := zero.Clear(sign(t, testKey, TypeCommence, good), "p", 0); err == nil || c.Valid() {
		t.Error("a nil Verified was cleared")
	}
	if c, err := (&Verified{}).Clear(sign(t, testKey, TypeCommence, good), "p", 0); err == nil || c.Valid() {
		t.Error("a zero Verified was cleared")
	}
}

// FuzzVerify feeds envelopes whose payload is signed with the pinned key, so
// that the fuzzer gets past the signature and into the strict parser.
func FuzzVerify(f *testing.F) {
	good, err := json.Marshal(goodOrder())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"v":1,"host":{"macs":null}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		env := &Envelope{Type: TypeOrder, KeyID: KeyID(testKey.Public().(ed25519.PublicKey)),
			Payload: base64.StdEncoding.EncodeToString(payload),
			Sig:     base64.StdEncoding.EncodeToString(ed25519.Sign(testKey, signed(TypeOrder, payload)))}
		v, err := Verify(env, goodFacts(), digest)
		if err == nil {
			o := v.Order()
			if o.BootID != "b1" || o.AgentNonce != "n1" || o.Disk.Bytes != 8<<30 || !strings.EqualFold(o.Disk.Serial, "d1") {
				t.Errorf("accepted %+v", o)
			}
		}
	})
}

// FuzzEnvelope feeds raw bytes as they come from the network.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"type":"labswarm/order/v1","key_id":"x","payload":"e30=","sig":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		env, err := ParseEnvelope(raw)
		if err != nil {
			return
		}
		if _, err := Verify(env, goodFacts(), digest); err == nil {
			t.Error("an envelope without a signature of the pinned key was accepted")
		}
	})
}
