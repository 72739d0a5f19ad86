//go:build integration

package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/fixture"
	"labswarm/images/library"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/deploy"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/screen"
	"labswarm/internal/testreq"
	"labswarm/server/config"
	"labswarm/server/decide"
)

// Where the partitions of the reference terminal's disk lie, in bytes.
const (
	mib            = 1 << 20
	espOff, espLen = 2 * mib, 16 * mib
	winOff, winLen = 18 * mib, 24 * mib
	extOff, extLen = 42 * mib, 32 * mib
	referenceLen   = 75*mib + 4096 // the last cell hangs over the end
)

// reference is the disk of a terminal: an EFI partition with a loader, NTFS, ext4 with holes of deleted files.
func reference(t *testing.T, k *fixture.Kit) (file, ntfs string) {
	t.Helper()
	referenceMu.Lock()
	defer referenceMu.Unlock()
	if referenceDisk == nil { // again in each test that lacks a tool, so that each says which
		referenceDisk, referenceNTFS = makeReference(t, k)
	}
	file, ntfs = k.Path("reference.img"), k.Path("ntfs.img")
	for path, raw := range map[string][]byte{file: referenceDisk, ntfs: referenceNTFS} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, ntfs
}

// The disk is made once for all tests.
var (
	referenceMu                  sync.Mutex
	referenceDisk, referenceNTFS []byte
)

func makeReference(t *testing.T, k *fixture.Kit) (raw, win []byte) {
	t.Helper()
	esp := k.FAT(espLen, 16, "")
	k.Run("mtools", "", "mmd", "-i", esp, "::EFI", "::EFI/BOOT")
	k.Run("mtools", "", "mcopy", "-i", esp, random(t, k, 1, 5000), "::EFI/BOOT/BOOTX64.EFI")
	ntfs := k.Sparse("ntfs.img", winLen)
	k.Run("ntfs-3g", "", "mkfs.ntfs", "-q", "-F", "-f", ntfs)
	k.Run("ntfs-3g", "", "ntfscp", "-q", ntfs, random(t, k, 2, 2*mib), "file.bin")
	root := k.Ext(extLen, k.Tree(3, 60, 400<<10), "-t", "ext4")
	k.ChurnExt(root, 60)
	file := k.Disk(referenceLen, fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=U\nstart=%d, size=%d, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\nstart=%d, size=%d, type=L\n",
		espOff/512, espLen/512, winOff/512, winLen/512, extOff/512, extLen/512), map[int64]string{espOff: esp, winOff: ntfs, extOff: root})
	var err error
	if raw, err = os.ReadFile(file); err == nil {
		win, err = os.ReadFile(ntfs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw, win
}

func random(t *testing.T, k *fixture.Kit, seed uint64, n int) string {
	t.Helper()
	path := k.Path("random")
	if err := os.WriteFile(path, fixture.Random(seed, n), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// terminal is a host whose disk is a loop device, with the real agent on it.
type terminal struct {
	s    *site
	host api.Host
	loop *agenttest.Loop
	sum  [32]byte // of the disk
}

func newTerminal(t *testing.T, s *site, name, file string) *terminal {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return &terminal{s: s, host: s.host(name), loop: agenttest.NewLoop(t, raw), sum: sha256.Sum256(raw)}
}

// run boots the terminal into the agent, which talks to the server by way of addr.
func (x *terminal) run(ctx context.Context, addr netip.AddrPort) (deploy.Outcome, error) {
	x.s.t.Helper()
	x.boot()
	return x.agent(ctx, addr)
}

// boot brings the terminal to where its agent starts.
func (x *terminal) boot() {
	t, s := x.s.t, x.s
	t.Helper()
	// A flag of the boot before: a PC that restarts has none.
	if out, err := exec.CommandContext(t.Context(), testreq.Tool(t, "blockdev", "util-linux"), "--setrw", x.loop.Dev).CombinedOutput(); err != nil {
		t.Fatalf("make the loop device writable: %v: %s", err, out)
	}
	s.boot(x.host, decide.Agent)
	s.srv.engine.InitramfsFetched(x.host.MAC)
}

// agent is the agent's session.
func (x *terminal) agent(ctx context.Context, addr netip.AddrPort) (deploy.Outcome, error) {
	t, s := x.s.t, x.s
	sys := inventory.Real()
	sys.Only, sys.Loops = []string{x.loop.Name}, true
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	key := s.srv.keys.ServerPublic()
	return deploy.Run(ctx, deploy.Config{
		Server: addr, Pin: key, Pins: bootenv.Pins{ServerKeys: []ed25519.PublicKey{key}, ImageKeys: s.imageKeys()},
		Disks: disk.NewSet(sys, true), Source: identity.Source{Sys: t.TempDir(), StandIn: &api.Evidence{UUID: x.host.UUID, Serial: "PC-" + x.host.Name}},
		Listen: "127.0.0.1:0", Screen: &screen.Screen{}, Log: log, LogText: func() string { return "" }, OrderWait: 20 * time.Second,
	})
}

// untouched fails when a byte of the terminal's disk has changed.
func (x *terminal) untouched() {
	x.s.t.Helper()
	if sha256.Sum256(x.loop.Content(x.s.t)) != x.sum {
		x.s.t.Errorf("the disk of %s was changed", x.host.Name)
	}
}

func (s *site) agents() netip.AddrPort { return netip.MustParseAddrPort(s.srv.agents.Addr().String()) }

func (s *site) capture(image string, x *terminal, force ...string) api.Job {
	s.t.Helper()
	j, err := s.cli.Capture(s.t.Context(), image, api.CaptureCreate{Host: x.host.Name, Force: force})
	if err != nil {
		s.t.Fatalf("order a capture: %v", err)
	}
	return j
}

// pending lists what captures have left in the image folder.
func (s *site) pending() []string {
	s.t.Helper()
	left, err := filepath.Glob(filepath.Join(s.dir, "images", ".capture-*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}

// quietSite is a site that takes an agent for gone after a moment.
func quietSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.quiet, s.beside = 300*time.Millisecond, true
	s.restart()
	return s
}

// received is how many cells of a capture the server has when no more come.
func (s *site) received(id uint64) int {
	n, since := -1, time.Now()
	for time.Since(since) < s.quiet {
		if st := s.srv.captures.State(id); st.Next != n {
			n, since = st.Next, time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return n
}

// silent waits until the server takes a host's agent for gone.
func (s *site) silent(host string) {
	s.t.Helper()
	last := time.Now()
	for end := time.Now().Add(time.Minute); time.Since(last) < 3*s.quiet; time.Sleep(20 * time.Millisecond) {
		if s.slot(host).Since.After(last) {
			last = time.Now()
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s does not fall silent", host)
		}
	}
}

// equal compares a captured version with the import of the same disk.
func (s *site) equal(file, image string) *library.Version {
	s.t.Helper()
	keys, err := config.LoadKeys(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	lib, err := library.Open(filepath.Join(s.t.TempDir(), "images"), keys.Image, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	want, err := lib.Import(s.t.Context(), library.ImportOptions{Name: image, File: file})
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := s.lib().Get(image, "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		for _, v := range []*library.Version{got, want} {
			if err := v.Close(); err != nil {
				s.t.Error(err)
			}
		}
	})
	a, b := want.Manifest(), got.Manifest()
	if !bytes.Equal(a.HashList, b.HashList) || a.Pieces() == 0 || !slices.Equal(a.Cells, b.Cells) || !slices.Equal(a.Zero, b.Zero) ||
		!slices.Equal(a.Used(), b.Used()) || !slices.Equal(a.Parts, b.Parts) || a.Disk != b.Disk || a.Boot != b.Boot || want.InfoHash() != got.InfoHash() {
		s.t.Errorf("%s differs from the import of the same disk: %d and %d pieces\n%s\n%s", image, b.Pieces(), a.Pieces(), got.ManifestJSON(), want.ManifestJSON())
	}
	if res, err := got.Verify(s.t.Context(), nil); err != nil || !res.OK() || !res.FramesOK() || !got.HasFrames() {
		s.t.Errorf("Verify = %+v, %v", res, err)
	}
	return got
}

// gate passes bytes on to the agent listener, and does something when enough have passed.
type gate struct {
	t    *testing.T
	addr netip.AddrPort
	sent atomic.Int64 // towards the server

	mu    sync.Mutex
	conns map[net.Conn]net.Conn
	limit int64
	hook  func()
}

func newGate(t *testing.T, to netip.AddrPort) *gate {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, addr: netip.MustParseAddrPort(ln.Addr().String()), conns: map[net.Conn]net.Conn{}}
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the listener
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(context.Background(), "tcp", to.String())
			if err != nil {
				_ = in.Close()
				continue
			}
			g.mu.Lock()
			g.conns[in] = out
			g.mu.Unlock()
			wg.Go(func() { g.pass(in, out); g.drop(in, out) })         // ends with either side
			wg.Go(func() { _, _ = io.Copy(in, out); g.drop(in, out) }) // ends with either side
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		g.cut()
		wg.Wait()
	})
	return g
}

// at calls hook once when n more bytes have gone to the server. They wait until it returns.
func (g *gate) at(n int64, hook func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit, g.hook = g.sent.Load()+n, hook
}

func (g *gate) pass(in, out net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		sent := g.sent.Add(int64(n))
		g.mu.Lock()
		hook := g.hook
		if hook != nil && sent >= g.limit {
			g.hook = nil
		} else {
			hook = nil
		}
		g.mu.Unlock()
		if hook != nil {
			hook()
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (g *gate) drop(in, out net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, in)
	_, _ = in.Close(), out.Close()
}

// cut ends every connection.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for in, out := range g.conns {
		_, _ = in.Close(), out.Close()
	}
}
