//go:build integration

package deploy

import (
	"bytes"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/fsmap/part"
	"labswarm/initramfs-agent/agenttest"
)

// TestPersonalisedDeployment: the proof is of the image, the disk then holds the
// PC's own name, and a second deployment fetches what that changed and no more.
func TestPersonalisedDeployment(t *testing.T) {
	sys := agenttest.NewSystem(t, "ext4", "")
	im := sys.Image(t)
	s := agenttest.NewServer(t, im)
	l := agenttest.NewSparseLoop(t, int64(len(im.Raw))) // growing needs a right that a container lacks; finalise tests it
	for round := range 2 {
		out, err := Run(t.Context(), config(t, s, loops(l.Name)))
		if err != nil || !out.Verified {
			t.Fatalf("Run = %+v, %v", out, err)
		}
		r := s.Last()
		if !r.OK || r.Readback != agenttest.ReadbackDigest(im) || len(r.HostKeys) != 3 || len(r.Warnings) != 0 {
			t.Fatalf("result %+v; want the image's digest and three host keys", r)
		}
		if n := im.Bundle.Manifest.Pieces(); round == 1 && (r.CellsKept < n/4 || r.CellsKept == n) {
			t.Errorf("second deployment kept %d of %d cells; want all but those that were changed", r.CellsKept, n)
		}
		hasTable(t, l, true)
		after := agenttest.List(t, "ext4", l.File, sys.Size)
		if got := after["etc/machine-id"]; !strings.HasPrefix(got, "f 444 0:0 0 ") {
			t.Errorf("/etc/machine-id is %q", got)
		}
	}
}

func hasTable(t *testing.T, l *agenttest.Loop, want bool) {
	t.Helper()
	c := l.Content(t)
	if _, err := part.Read(bytes.NewReader(c), int64(len(c)), 512); (err == nil) != want {
		t.Errorf("partition table: %v; want one: %v", err, want)
	}
}

// TestPersonalisePolicies: required, a disk that cannot get its own name fails
// after its proof and stays without a table; tried, it is done with a warning;
// off, it is the image.
func TestPersonalisePolicies(t *testing.T) {
	sys := agenttest.NewSystem(t, "ext4", "rm etc/hostname; mkdir etc/hostname")
	im := sys.Image(t)
	for policy, ok := range map[string]bool{order.PersonaliseRequire: false, order.PersonaliseTry: true, order.PersonaliseOff: true} {
		t.Run(policy, func(t *testing.T) {
			s := agenttest.NewServer(t, im)
			s.Order = func(o *order.Order) { o.Personalise = policy }
			l := agenttest.NewSparseLoop(t, int64(len(im.Raw)))
			out, err := Run(t.Context(), config(t, s, loops(l.Name)))
			r := s.Last()
			if (err == nil) != ok || r.OK != ok || out.Verified != ok {
				t.Fatalf("Run = %+v, %v; result %+v; want good: %v", out, err, r, ok)
			}
			if r.Readback != agenttest.ReadbackDigest(im) {
				t.Errorf("read-back %q; the disk was right before", r.Readback)
			}
			if !ok && (r.Code != api.CodePersonalise || !strings.Contains(r.Error, "etc/hostname is not a file")) {
				t.Errorf("code %s: %s", r.Code, r.Error)
			}
			if got, want := len(r.Warnings) > 0, policy == order.PersonaliseTry; got != want {
				t.Errorf("warnings %q; want some: %v", r.Warnings, want)
			}
			hasTable(t, l, ok)
			if policy == order.PersonaliseOff {
				im.Check(t, l.Content(t))
			}
			if ok {
				return
			}
			// Tried again without: what was written is kept.
			s.Order = func(o *order.Order) { o.Personalise = order.PersonaliseOff }
			out, err = Run(t.Context(), config(t, s, loops(l.Name)))
			if again := s.Last(); err != nil || !out.Verified || again.CellsKept < im.Bundle.Manifest.Pieces()/2 {
				t.Errorf("Run again = %+v, %v; result %+v", out, err, again)
			}
			im.Check(t, l.Content(t))
		})
	}
}
