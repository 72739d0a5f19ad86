//go:build integration

package daemon

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testreq"
)

// ext4 shutdown, linux/fs/ext4/ext4.h: what is not on the medium by now is lost, as in a power cut.
const (
	ext4Shutdown   = 0x8004587d // _IOR('X', 125, __u32)
	shutdownNoSync = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
)

// medium is a state folder on a filesystem of its own, whose power can be cut.
type medium struct {
	t    *testing.T
	dev  string
	dir  string
	open bool
}

func newMedium(t *testing.T) *medium {
	t.Helper()
	testreq.Root(t)
	testreq.Tool(t, "mkfs.ext4", "e2fsprogs")
	testreq.Filesystem(t, "ext4")
	m := &medium{t: t, dev: agenttest.NewSparseLoop(t, 256<<20).Dev, dir: killDir(t)}
	m.tool("mkfs.ext4", "-q", m.dev)
	m.mount()
	t.Cleanup(m.unmount)
	return m
}

func (m *medium) tool(name string, args ...string) {
	m.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil { // also after the test's context has ended
		m.t.Errorf("%s %v: %v: %s", name, args, err, out)
	}
}

func (m *medium) mount() {
	m.t.Helper()
	m.tool("mount", "-t", "ext4", m.dev, m.dir)
	m.open = true
}

func (m *medium) unmount() {
	if m.open {
		m.open = false
		m.tool("umount", m.dir)
	}
}

// cut is the power cut: no writer is left, so only what was on the medium comes back.
func (m *medium) cut() {
	m.t.Helper()
	f, err := os.Open(m.dir)
	if err != nil {
		m.t.Error(err)
		return
	}
	err = unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, shutdownNoSync)
	if cerr := f.Close(); err != nil || cerr != nil {
		m.t.Errorf("cut the power of %s: %v, %v", m.dev, err, cerr)
	}
	m.unmount()
	m.mount()
}

// TestServerPowerCuts is the bar with the server's power cut in place of a mere SIGKILL, which the page cache
// survives. With the store's fsync off the same test must find something: that is its negative control.
func TestServerPowerCuts(t *testing.T) {
	run := func(t *testing.T, cuts, hosts int, env ...string) *killBar {
		m := newMedium(t)
		k := newKillBar(t, hosts, m.dir, env...)
		t.Cleanup(k.kill) // before the medium is unmounted
		k.between = func(*killBar) { m.cut() }
		k.run(cuts, rand.Uint64())
		t.Logf("%d power cuts, %d commences, %d hosts done, %d findings", k.tally.Kills, k.tally.Commences, k.tally.Done, len(k.broken()))
		return k
	}
	t.Run("fsync", func(t *testing.T) {
		for _, f := range run(t, 10, 8).broken() {
			t.Error(f)
		}
	})
	t.Run("control", func(t *testing.T) {
		k := run(t, 40, 8, "KILLBAR_NOSYNC=1")
		if len(k.broken()) == 0 {
			t.Fatal("40 power cuts without fsync, and nothing was found: the test proves nothing")
		}
		t.Logf("found, as it must be, at cut %d: %s", k.tally.Kills, strings.SplitN(k.broken()[0], "\n", 2)[0])
	})
}
