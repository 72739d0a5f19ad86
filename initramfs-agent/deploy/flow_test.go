package deploy

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/report"
	"labswarm/swarm/peercert"
)

// fakeDisks is a sysfs with disks that have no device node: whoever tries to
// open one fails, so these tests end before the first read of a disk.
func fakeDisks(t *testing.T, size int64, serials ...string) *disk.Set {
	t.Helper()
	root := t.TempDir()
	put := func(name, text string) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("proc/self/mountinfo", "")
	if err := os.MkdirAll(filepath.Join(root, "sys", "block"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, s := range serials {
		dir := fmt.Sprintf("sys/block/vd%c/", 'a'+i)
		put(dir+"size", fmt.Sprint(size/512))
		put(dir+"queue/logical_block_size", "512")
		put(dir+"serial", s)
		put(dir+"ro", "0")
		put(dir+"removable", "0")
	}
	return disk.NewSet(inventory.System{Sys: filepath.Join(root, "sys"), Proc: filepath.Join(root, "proc"), Dev: filepath.Join(root, "dev")}, false)
}

func TestNothingToDoBootsLocal(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	for _, tt := range []struct {
		name   string
		set    func(*agenttest.Server, *Config)
		reason string
	}{
		{"go_local", func(s *agenttest.Server, _ *Config) {
			s.Enrol = func(api.EnrolRequest) api.EnrolReply {
				return api.EnrolReply{Status: api.EnrolGoLocal, Reason: "no job for this host"}
			}
		}, "no job for this host"},
		{"wait for ever", func(s *agenttest.Server, c *Config) {
			s.Enrol = func(api.EnrolRequest) api.EnrolReply {
				return api.EnrolReply{Status: api.EnrolWait, RetryAfterS: 1}
			}
			c.OrderWait = 1500 * time.Millisecond
		}, "no order within"},
		{"unknown status", func(s *agenttest.Server, _ *Config) {
			s.Enrol = func(api.EnrolRequest) api.EnrolReply { return api.EnrolReply{Status: "dance"} }
		}, "no work"},
		{"cancelled before commence", func(s *agenttest.Server, _ *Config) {
			told := make(chan struct{})
			var once sync.Once
			s.Progress = func(api.Progress) api.ProgressReply {
				once.Do(func() { close(told) })
				return api.ProgressReply{IntervalMs: 200, Commands: []string{api.CommandCancel}}
			}
			s.Order = func(*order.Order) { // so that the cancel comes first, however slow the machine is
				<-told
				time.Sleep(time.Second)
			}
		}, "cancelled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := agenttest.NewServer(t, im)
			c := config(t, s, fakeDisks(t, 64<<20, "one"))
			tt.set(s, &c)
			out, err := Run(t.Context(), c)
			if err != nil || out.Committed || out.Verified || !strings.Contains(out.Reason, tt.reason) {
				t.Errorf("Run = %+v, %v; want the local disk because %q", out, err, tt.reason)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	im := agenttest.New(t, agenttest.Options{})
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := peercert.NewAuthority(make([]byte, 32), [20]byte{1}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		serials []string
		size    int64
		set     func(*agenttest.Server, *Config)
		code    string
	}{
		{"another server's key", []string{"one"}, 64 << 20, func(_ *agenttest.Server, c *Config) { c.Pin = stranger }, api.CodeServerKey},
		{"server does not answer", []string{"one"}, 64 << 20, func(s *agenttest.Server, c *Config) { s.Silent = true; c.OrderWait = time.Second }, api.CodeNoServer},
		{"order signed by an unpinned key", []string{"one"}, 64 << 20, func(_ *agenttest.Server, c *Config) { c.Pins.ServerKeys = []ed25519.PublicKey{stranger} }, api.CodeBadOrder},
		{"image signed by an unpinned key", []string{"one"}, 64 << 20, func(_ *agenttest.Server, c *Config) { c.Pins.ImageKeys = []ed25519.PublicKey{stranger} }, api.CodeBadImage},
		{"order of another boot", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) { s.Order = func(o *order.Order) { o.BootID = "other" } }, api.CodeBadOrder},
		{"order for another machine", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			s.Order = func(o *order.Order) { o.Host.UUID = strings.Replace(testUUID, "1", "9", 1) }
		}, api.CodeBadOrder},
		{"order that has run out at once", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) { s.Order = func(o *order.Order) { o.ExpiresAfterS = 0 } }, api.CodeBadOrder},
		{"order for a disk that is not here", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) { s.Order = func(o *order.Order) { o.Disk.Serial = "gone" } }, api.CodeDiskNotFound},
		{"two disks with one serial", []string{"one", "one"}, 64 << 20, func(*agenttest.Server, *Config) {}, api.CodeAmbiguous},
		{"no disk", nil, 64 << 20, func(*agenttest.Server, *Config) {}, api.CodeDiskNotFound},
		{"disk too small", []string{"one"}, 2 << 20, func(*agenttest.Server, *Config) {}, api.CodeDiskTooSmall},
		{"order names another manifest", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			s.Order = func(o *order.Order) { o.Image.ManifestDigest = strings.Repeat("0", 64) }
		}, api.CodeBadImage},
		{"torrent of another image", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			mixed := *s.Image // manifest and signature are right
			mixed.Files = maps.Clone(mixed.Files)
			mixed.Files["image.torrent"] = agenttest.New(t, agenttest.Options{Seed: 1}).Files["image.torrent"]
			s.Image = &mixed
		}, api.CodeBadImage},
		{"order names another image", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) { s.Order = func(o *order.Order) { o.Image.Name = "other" } }, api.CodeBadImage},
		{"order without a certificate", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			s.Order = func(o *order.Order) { o.Swarm = order.Swarm{PlainPeers: true} }
		}, api.CodeBadOrder},
		{"certificate of another boot", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			s.Order = func(o *order.Order) { o.Swarm.Cert = s.Issue(peercert.ID{Host: "a01", Job: 7, Boot: "earlier"}) }
		}, api.CodeBadOrder},
		{"certificate of another job", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			s.Order = func(o *order.Order) { o.Swarm.Cert = s.Issue(peercert.ID{Host: "a01", Job: 6, Boot: o.BootID}) }
		}, api.CodeBadOrder},
		{"authority of another image", []string{"one"}, 64 << 20, func(s *agenttest.Server, _ *Config) {
			s.Order = func(o *order.Order) { o.Swarm.Authority = other.Cert() }
		}, api.CodeBadOrder},
		{"disk without device node", []string{"one"}, 64 << 20, func(*agenttest.Server, *Config) {}, api.CodeDiskRead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := agenttest.NewServer(t, im)
			c := config(t, s, fakeDisks(t, tt.size, tt.serials...))
			tt.set(s, &c)
			out, err := Run(t.Context(), c)
			if err == nil || out.Committed || out.Verified {
				t.Fatalf("Run = %+v, %v; want a refusal", out, err)
			}
			code, text := report.Code(err)
			if code != tt.code {
				t.Errorf("code %s (%s); want %s", code, text, tt.code)
			}
			if code == api.CodeServerKey || code == api.CodeNoServer {
				return // nobody to report to
			}
			if r := s.Last(); r.OK || r.Code != tt.code || r.Error == "" || r.Fence != 0 || r.Readback != "" {
				t.Errorf("reported %+v; want code %s before any commence", r, tt.code)
			}
			if len(s.Logs) == 0 || s.Logs[0] != "last lines" {
				t.Errorf("logs sent: %q", s.Logs)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := agenttest.NewServer(t, agenttest.New(t, agenttest.Options{}))
	s.Silent = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, config(t, s, fakeDisks(t, 64<<20, "one"))); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v; want the context's error", err)
	}
}

func TestMeter(t *testing.T) {
	var m meter
	for i := range 20 {
		m.update(time.Duration(i+1)*time.Second, int64(i)*1000)
	}
	if r := m.update(21*time.Second, 20_000); r < 950 || r > 1050 {
		t.Errorf("rate %d; want about 1000", r)
	}
	if r := m.update(22*time.Second, 0); r != 0 {
		t.Errorf("rate %d after a new phase; want 0", r)
	}
}
