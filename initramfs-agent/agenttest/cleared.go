package agenttest

import (
	"crypto/ed25519"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/order"
)

// Cleared makes the one key to a disk, the only way there is: a signed order,
// verified, and a signed commence.
func Cleared(t testing.TB, id order.DiskID, replace ...api.Mark) order.Cleared {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := order.Order{V: 1, ID: "o", ServerKeyID: order.KeyID(pub), FenceEpoch: "e", BootID: "b", AgentNonce: "n", Scope: "disk", Mode: "delta", After: "reboot",
		Personalise: order.PersonaliseOff, ExpiresAfterS: 60, Host: order.HostID{MACs: []string{"52:54:00:00:00:01"}}, Disk: id, Replace: replace,
		Image: order.ImageRef{Name: "x", ManifestDigest: "d", MinDiskBytes: 1 << 20, Sector: id.Sector}}
	env, err := order.Sign(key, order.TypeOrder, o)
	if err != nil {
		t.Fatal(err)
	}
	v, err := order.Verify(env, order.Facts{Keys: []ed25519.PublicKey{pub}, BootID: "b", Nonce: "n", MACs: o.Host.MACs, Disk: id}, "d")
	if err != nil {
		t.Fatal(err)
	}
	env, err = order.Sign(key, order.TypeCommence, order.Commence{OrderID: "o", BootID: "b", AgentNonce: "n", FenceEpoch: "e", Fence: 1, PlanDigest: "p"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Clear(env, "p", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
