//go:build integration

package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/deploy"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/screen"
)

// killHost is one PC of the bar: it boots by HTTP from an address of its own, runs the real agent on a loop device
// when it is told to, and starts again until its own system is on.
type killHost struct {
	k    *killBar
	host api.Host
	ip   string
	loop *agenttest.Loop
	http *http.Client
	sys  string // an empty folder in place of /sys

	mu       sync.Mutex
	job      uint64
	want     []byte
	granted  bool // the agent has a commence of this job
	acked    bool // the server has acknowledged the result
	wipes    int  // commences
	resumes  int  // boots that ended behind a commence without a result
	verified bool
	booted   bool // its own system, at the end
	lastErr  error
}

func newKillHost(k *killBar, h api.Host, i int, l *agenttest.Loop) *killHost {
	ip := fmt.Sprintf("127.1.0.%d", i+1)
	return &killHost{k: k, host: h, ip: ip, loop: l, http: bootClient(ip), sys: k.t.TempDir()}
}

// bootClient asks from its own address, as each PC does; firmware keeps no connection.
func bootClient(ip string) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: time.Second}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}
}

func (h *killHost) begin(job uint64, want []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.job, h.want = job, want
	h.granted, h.acked, h.wipes, h.resumes, h.verified, h.booted, h.lastErr = false, false, 0, 0, false, false, nil
}

// get fetches a boot file; ok is false when the server is away or refuses.
func (k *killBar) get(ctx context.Context, c *http.Client, path string) (body string, ok bool) {
	req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://127.0.0.1:%d/%s", k.ports[3], path), nil)
	if err != nil {
		k.t.Error(err)
		return "", false
	}
	res, err := c.Do(req)
	if err != nil {
		return "", false
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err == nil && res.StatusCode == http.StatusOK
}

// boot asks what to boot, by iPXE or GRUB, and fetches the agent when told to.
func (k *killBar) boot(ctx context.Context, c *http.Client, h api.Host) (agent, answered bool) {
	script, ok := k.get(ctx, c, "boot.ipxe?mac="+h.MAC+"&uuid="+h.UUID)
	if !ok {
		return false, false
	}
	k.count(&k.tally.BootQuestions)
	if !strings.Contains(script, "vmlinuz") {
		return false, true
	}
	k.count(&k.tally.Agents)
	for _, f := range []string{"vmlinuz", "initrd.img"} {
		if _, ok := k.get(ctx, c, f); !ok {
			return true, false // the server died in between, or changed its mind: the PC starts again
		}
	}
	return true, true
}

// play is the PC's life in one job: on until its own system is booted after the agent's work.
func (h *killHost) play(ctx context.Context) {
	for ctx.Err() == nil {
		h.mu.Lock()
		acked, half := h.acked, h.granted && !h.verified
		h.mu.Unlock()
		agent, answered := h.k.boot(ctx, h.http, h.host)
		switch {
		case agent && acked:
			h.k.find(&h.k.tally.WrongBoots, "%s is done and was told to boot the agent", h.host.Name)
			return
		case answered && !agent && half:
			h.k.find(&h.k.tally.WrongBoots, "%s is half written and was told to boot its disk", h.host.Name)
			return
		case answered && !agent && acked:
			h.mu.Lock()
			h.booted = true
			h.mu.Unlock()
			h.k.mark(2)
			return
		case answered && agent:
			h.agent(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond): // it is switched on again
		}
	}
}

// agent runs the real agent once.
func (h *killHost) agent(ctx context.Context) {
	k := h.k
	sys := inventory.Real()
	sys.Only, sys.Loops = []string{h.loop.Name}, true
	out, err := deploy.Run(ctx, deploy.Config{
		Server: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(k.ports[0])), Pin: k.key,
		Pins:  bootenv.Pins{ServerKeys: []ed25519.PublicKey{k.key}, ImageKeys: k.s.imageKeys()},
		Disks: disk.NewSet(sys, false), Source: identity.Source{Sys: h.sys, StandIn: &api.Evidence{UUID: h.host.UUID, Serial: "PC-" + h.host.Name}},
		Listen: "127.0.0.1:0", Screen: &screen.Screen{}, Log: slog.New(&stateLog{h: h}), LogText: func() string { return "" },
		SeedWait: 20 * time.Second,
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verified = h.verified || out.Verified
	if out.Committed && !h.acked {
		h.resumes++
		k.count(&k.tally.Resumes)
	}
	if err != nil {
		h.lastErr = err
	}
}

// stateLog hears from the agent's log what the server has acknowledged to it.
type stateLog struct{ h *killHost }

func (*stateLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (l *stateLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "state" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "state" {
			l.h.state(api.State(a.Value.String()))
		}
		return false
	})
	return nil
}

func (l *stateLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *stateLog) WithGroup(string) slog.Handler      { return l }

// state notes a state that the agent enters: WRITING is entered behind a commence, DONE behind an acknowledged result.
func (h *killHost) state(s api.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s == api.StateWriting && h.wipes <= h.resumes: // the first time in this boot
		h.granted = true
		h.wipes++
		h.k.count(&h.k.tally.Commences)
		h.k.mark(0)
	case s == api.StateDone:
		h.acked = true
		h.k.mark(1)
	}
}

// judge checks one host when the job is over.
func (h *killHost) judge(sl api.Slot) {
	k := h.k
	h.mu.Lock()
	defer h.mu.Unlock()
	raw := h.loop.Content(k.t)
	right := bytes.Equal(raw[1<<20:], h.want[1<<20:])
	if !h.booted || !right || !sl.Verified || (sl.State != api.StateConfirmed && sl.State != api.StateDone) {
		k.find(&k.tally.HostsLost, "%s in job %d: booted its own system %v, content right %v, server says %s %q %q verified %v, last error: %v", h.host.Name, h.job, h.booted, right, sl.State, sl.Code, sl.Error, sl.Verified, h.lastErr)
		return
	}
	k.count(&k.tally.Done)
	if h.wipes != 1+h.resumes || sl.Attempt > 3 {
		k.find(&k.tally.SecondWipes, "%s in job %d: %d commences with %d resumes, %d attempts", h.host.Name, h.job, h.wipes, h.resumes, sl.Attempt)
	}
}

// stranger is a PC that is in no job, or in no inventory: it asks all the time.
func (k *killBar) stranger(ctx context.Context, h api.Host, i int) {
	c := bootClient(fmt.Sprintf("127.2.0.%d", i+1))
	for n := 0; ctx.Err() == nil; n++ {
		ask := h
		if n%2 == 1 {
			ask.MAC, ask.UUID = fmt.Sprintf("52:54:00:99:%02x:%02x", i, n%256), ""
		}
		if agent, _ := k.boot(ctx, c, ask); agent {
			k.find(&k.tally.WrongBoots, "%s is in no job and was told to boot the agent", ask.MAC)
		}
		for _, f := range []string{"vmlinuz", "initrd.img"} {
			if _, ok := k.get(ctx, c, f); ok {
				k.find(&k.tally.WrongBoots, "%s is in no job and was given %s", ask.MAC, f)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(150 * time.Millisecond):
		}
	}
}
