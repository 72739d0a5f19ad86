package order

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"
)

func goodCapture() Capture {
	o := goodOrder()
	return Capture{V: 1, ID: "c1", ServerKeyID: o.ServerKeyID, Job: 3, Attempt: 1, Host: o.Host, BootID: "b1", AgentNonce: "n1",
		Disk: o.Disk, Image: "deb", Force: []string{}, After: "reboot", ExpiresAfterS: 600}
}

func TestVerifyCapture(t *testing.T) {
	r, err := VerifyCapture(sign(t, testKey, TypeCapture, goodCapture()), goodFacts())
	if err != nil || !r.Valid() || r.Order().Image != "deb" || r.Deadline() != 11*time.Minute {
		t.Fatalf("VerifyCapture(good order) = %+v, %v", r, err)
	}
	if (Reading{}).Valid() {
		t.Error("the zero Reading is valid")
	}
	for _, tt := range []struct {
		name  string
		rule  Reason
		order func(*Capture)
		facts func(*Facts)
		env   func(*Envelope)
	}{
		{name: "unknown key", rule: UnknownKey, facts: func(f *Facts) { f.Keys = []ed25519.PublicKey{otherKey.Public().(ed25519.PublicKey)} }},
		{name: "key id of another key", rule: UnknownKey, order: func(c *Capture) { c.ServerKeyID = "ffff" }},
		{name: "deployment played as capture", rule: BadEnvelope, env: func(e *Envelope) { e.Type = TypeOrder }},
		{name: "other signature domain", rule: BadSignature, env: func(e *Envelope) { *e = *sign(t, testKey, TypeOrder, goodCapture()); e.Type = TypeCapture }},
		{name: "version 2", rule: BadVersion, order: func(c *Capture) { c.V = 2 }},
		{name: "no image", rule: BadVersion, order: func(c *Capture) { c.Image = "" }},
		{name: "end", rule: BadVersion, order: func(c *Capture) { c.After = "explode" }},
		{name: "replayed after reboot", rule: WrongNonce, facts: func(f *Facts) { f.Nonce = "n2" }},
		{name: "other boot", rule: WrongBoot, facts: func(f *Facts) { f.BootID = "b2" }},
		{name: "other machine", rule: WrongHost, facts: func(f *Facts) { f.UUID, f.UUIDSwap = "x", "y" }},
		{name: "swapped disk", rule: WrongDisk, facts: func(f *Facts) { f.Disk.Serial = "D2" }},
		{name: "other size", rule: WrongDisk, facts: func(f *Facts) { f.Disk.Bytes++ }},
		{name: "other sector", rule: WrongSector, facts: func(f *Facts) { f.Disk.Sector = 4096 }},
		{name: "no life", rule: Expired, order: func(c *Capture) { c.ExpiresAfterS = 0 }},
		{name: "eternal life", rule: Expired, order: func(c *Capture) { c.ExpiresAfterS = 1 << 40 }},
	} {
		c, f := goodCapture(), goodFacts()
		if tt.order != nil {
			tt.order(&c)
		}
		if tt.facts != nil {
			tt.facts(&f)
		}
		env := sign(t, testKey, TypeCapture, c)
		if tt.env != nil {
			tt.env(env)
		}
		r, err := VerifyCapture(env, f)
		if err == nil || r.Valid() {
			t.Errorf("%s: accepted", tt.name)
		} else if got := ruleOf(t, err); got != tt.rule {
			t.Errorf("%s: refused by %s; want %s", tt.name, got, tt.rule)
		}
	}
	raw := sign(t, testKey, TypeCapture, struct {
		Capture
		Write bool `json:"write"`
	}{goodCapture(), true})
	if _, err := VerifyCapture(raw, goodFacts()); err == nil || ruleOf(t, err) != BadPayload {
		t.Errorf("an unknown field: %v", err)
	}
}

// TestCaptureNeverClears: nothing that is signed as a capture becomes a Verified, and so nothing a Cleared; not even
// when its content is that of an order to write.
func TestCaptureNeverClears(t *testing.T) {
	commence := Commence{OrderID: "c1", BootID: "b1", AgentNonce: "n1", FenceEpoch: "e1", Fence: 8, PlanDigest: strings.Repeat("1", 64)}
	for name, payload := range map[string]any{"capture": goodCapture(), "order": goodOrder()} {
		env := sign(t, testKey, TypeCapture, payload)
		for _, typ := range []string{TypeCapture, TypeOrder, TypeCommence} {
			env.Type = typ
			v, err := Verify(env, goodFacts(), digest)
			if err == nil {
				t.Fatalf("%s with type %s is a Verified order", name, typ)
			}
			if c, err := v.Clear(sign(t, testKey, TypeCommence, commence), commence.PlanDigest, 0); err == nil || c.Valid() {
				t.Errorf("%s with type %s was cleared", name, typ)
			}
		}
	}
	if _, err := Verify(sign(t, testKey, TypeOrder, goodCapture()), goodFacts(), digest); err == nil {
		t.Error("the content of a capture passes as an order")
	}
}
