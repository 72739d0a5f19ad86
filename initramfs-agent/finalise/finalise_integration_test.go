//go:build integration

package finalise

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/disk/inventory"
	"labswarm/initramfs-agent/disk/target"
	"labswarm/initramfs-agent/personalise"
	"labswarm/internal/testreq"
)

// seat is a loop device that holds a system, opened as the agent does.
func seat(t *testing.T, s *agenttest.System, diskBytes int64) (*agenttest.Loop, *disk.Writable) {
	t.Helper()
	l := agenttest.NewSparseLoop(t, diskBytes)
	agenttest.Sh(t, `dd if="$1" of="$2" bs=1M conv=notrunc,sparse status=none`, s.File, l.File)
	sys := inventory.Real()
	sys.Only, sys.Loops = []string{l.Name}, true
	set := disk.NewSet(sys, true)
	list, err := set.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %v, %v", list, err)
	}
	w, err := set.Open(agenttest.Cleared(t, target.IDOf(list[0])))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.Invalidate(64 << 10); err != nil {
		t.Fatal(err)
	}
	return l, w
}

// describe is the system's manifest, and its partitions on a disk where the last
// one has grown by more bytes.
func describe(s *agenttest.System, more int64) (*manifest.Manifest, []manifest.Part) {
	m := &manifest.Manifest{Parts: []manifest.Part{{N: 1, Start: agenttest.SystemStart, Size: s.Size, FS: s.FS, OS: "linux", Grow: true}}}
	parts := slices.Clone(m.Parts)
	parts[0].Size += more
	return m, parts
}

func options(t *testing.T, policy string) Options {
	w := io.Discard
	if testing.Verbose() {
		w = os.Stderr
	}
	return Options{Policy: policy, Log: slog.New(slog.NewTextHandler(w, nil)), Say: func(string) {},
		Host: personalise.Host{Name: "pc07", Room: "A101", Image: "test/1", Job: 3}}
}

// TestFinalise is the whole of it on real filesystems: after it the system has the
// PC's identity, has grown into its partition, is clean for its own checker, and
// every other file is what it was.
func TestFinalise(t *testing.T) {
	for fs, more := range map[string]int64{"ext4": 40 << 20, "xfs": 64 << 20, "btrfs": 48 << 20} {
		t.Run(fs, func(t *testing.T) {
			s := agenttest.NewSystem(t, fs, "")
			before := agenttest.List(t, fs, s.File, s.Size)
			l, w := seat(t, s, s.Size+more+2<<20)
			m, parts := describe(s, more)
			out, err := Run(t.Context(), w, m, parts, options(t, order.PersonaliseRequire))
			if fs == "ext4" && !agenttest.MayGrowExt(t) {
				// A failed grow is a warning, and nothing else.
				if len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0], "operation not permitted") {
					t.Errorf("warnings %q; want that the kernel does not permit to grow ext4", out.Warnings)
				}
				out.Warnings, more = nil, 0
			}
			if err != nil || len(out.Warnings) != 0 || len(out.HostKeys) != 3 {
				t.Fatalf("Run = %+v, %v; want three host keys and no warning", out, err)
			}
			exclusive(t, l)
			after := agenttest.List(t, fs, l.File, s.Size+more)
			same(t, before, after)
			grown(t, fs, l, s.Size, more)
			if fs != "ext4" {
				return
			}
			keysFit(t, l, s.Size+more, out.HostKeys)
			// Again, as after a power cut: the same result with other keys.
			again, err := Run(t.Context(), w, m, parts, options(t, order.PersonaliseRequire))
			if err != nil || slices.Equal(again.HostKeys, out.HostKeys) {
				t.Fatalf("second Run = %+v, %v; want new keys", again, err)
			}
			same(t, before, agenttest.List(t, fs, l.File, s.Size+more))
		})
	}
}

// exclusive checks that the disk is held as before and nothing of it is known to
// the kernel.
func exclusive(t *testing.T, l *agenttest.Loop) {
	t.Helper()
	if _, err := os.Stat(l.Dev + "p1"); err == nil {
		t.Errorf("%sp1 is still there", l.Dev)
	}
	if out, err := exec.CommandContext(t.Context(), testreq.Tool(t, "mkfs.ext4", "e2fsprogs"), "-q", l.Dev).CombinedOutput(); err == nil {
		t.Errorf("another program could take the disk: %s", out)
	}
}

// same compares two listings but for what personalisation is for.
func same(t *testing.T, before, after map[string]string) {
	t.Helper()
	changed := map[string]bool{}
	for name, was := range before {
		if after[name] != was {
			changed[name] = true
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			changed[name] = true
		}
	}
	want := []string{"etc/hostname", "etc/hosts", "etc/machine-id", "etc/ssh/ssh_host_dsa_key", "etc/ssh/ssh_host_dsa_key.pub",
		"etc/ssh/ssh_host_ecdsa_key", "etc/ssh/ssh_host_ecdsa_key.pub", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub",
		"etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/udev/rules.d/70-persistent-net.rules",
		"var/lib/NetworkManager/secret_key", "var/lib/dbus/machine-id", "var/lib/dhcp/dhclient.eth0.leases", "var/lib/systemd/random-seed"}
	if got := slices.Sorted(maps.Keys(changed)); !slices.Equal(got, want) {
		t.Errorf("changed files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, has := range map[string]string{
		"etc/hostname": "f 640 0:42 5 ", "etc/machine-id": "f 444 0:0 0 ",
		"etc/ssh/ssh_host_ed25519_key": "f 600 0:0 ", "etc/ssh/ssh_host_ecdsa_key.pub": "f 644 0:0 ",
	} {
		if !strings.HasPrefix(after[name], has) {
			t.Errorf("%s is %q; want %q", name, after[name], has)
		}
	}
	for _, name := range []string{"var/lib/dbus/machine-id", "etc/ssh/ssh_host_dsa_key", "var/lib/systemd/random-seed", "etc/.labswarm-new"} {
		if is, ok := after[name]; ok {
			t.Errorf("%s is still there: %s", name, is)
		}
	}
}

// grown asks the filesystem's own superblock for its size.
func grown(t *testing.T, fs string, l *agenttest.Loop, was, more int64) {
	t.Helper()
	got := agenttest.Sh(t, map[string]string{
		"ext4":  `dumpe2fs -h "$1?offset=1048576" 2> /dev/null | awk '/^Block count/ {n = $3} /^Block size/ {b = $3} END {print n * b}'`,
		"xfs":   `dd if="$1" of="$1.p" bs=1M skip=1 count=1 status=none; truncate -s 1G "$1.p"; xfs_db -r -f -c 'sb 0' -c 'p dblocks blocksize' "$1.p" 2> /dev/null | awk '{n = n ? n * $3 : $3} END {print n}'`,
		"btrfs": `dd if="$1" of="$1.p" bs=1M skip=1 count=1 status=none; btrfs inspect-internal dump-super "$1.p" | awk '/^total_bytes/ {print $2}'`,
	}[fs], l.File)
	if strings.TrimSpace(got) != itoa(was+more) {
		t.Errorf("%s has %s bytes; want %d", fs, strings.TrimSpace(got), was+more)
	}
}

// keysFit compares the reported keys with those that OpenSSH finds on the disk.
func keysFit(t *testing.T, l *agenttest.Loop, size int64, keys []string) {
	t.Helper()
	testreq.Tool(t, "ssh-keygen", "openssh-client")
	got := agenttest.Sh(t, `d=$(mktemp -d -p "$(dirname "$1")"); dev=$(losetup --find --show --read-only --offset 1048576 --sizelimit "$2" "$1")
trap 'umount "$d" 2> /dev/null; losetup --detach "$dev"' EXIT
mount -o ro "$dev" "$d"; cat "$d/etc/hosts" "$d/etc/hostname"
for k in ed25519 ecdsa rsa; do ssh-keygen -y -f "$d/etc/ssh/ssh_host_${k}_key" | cut -d' ' -f1,2; cut -d' ' -f1,2 "$d/etc/ssh/ssh_host_${k}_key.pub"; done`, l.File, itoa(size))
	want := "127.0.0.1 localhost\n127.0.1.1\tpc07.lab.example pc07\n::1 localhost # six\npc07\n"
	for _, k := range keys {
		want += k + "\n" + k + "\n"
	}
	if got != want {
		t.Errorf("on the disk:\n%s\nwant:\n%s", got, want)
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// TestPolicies: what cannot be personalised fails a host, is told, or is not tried,
// and the filesystem is whole each time.
func TestPolicies(t *testing.T) {
	s := agenttest.NewSystem(t, "ext4", "rm etc/hosts; mkdir etc/hosts")
	before := agenttest.List(t, "ext4", s.File, s.Size)
	for policy, want := range map[string]struct{ code, warning string }{
		order.PersonaliseRequire: {api.CodePersonalise, ""},
		order.PersonaliseTry:     {"", "etc/hosts is not a file"},
		order.PersonaliseOff:     {"", ""},
	} {
		l, w := seat(t, s, s.Size+3<<20)
		m, parts := describe(s, 0)
		out, err := Run(t.Context(), w, m, parts, options(t, policy))
		var f *api.Fault
		if errors.As(err, &f) != (want.code != "") || f != nil && f.Code != want.code {
			t.Errorf("%s: %v; want code %q", policy, err, want.code)
		}
		if got := strings.Join(out.Warnings, " "); !strings.Contains(got, want.warning) || (got == "") != (want.warning == "") {
			t.Errorf("%s: warnings %q; want %q", policy, got, want.warning)
		}
		exclusive(t, l)
		if after := agenttest.List(t, "ext4", l.File, s.Size); !maps.Equal(before, after) {
			t.Errorf("%s: files were changed", policy)
		}
	}
}

// TestNothingToDoTouchesNothing: a filesystem without a system, and a disk that
// nothing is wanted of, stay as they are to the byte.
func TestNothingToDoTouchesNothing(t *testing.T) {
	s := agenttest.NewSystem(t, "ext4", "rm usr/lib/os-release etc/os-release")
	l, w := seat(t, s, s.Size+3<<20)
	before := l.Content(t)
	m, parts := describe(s, 0)
	if out, err := Run(t.Context(), w, m, parts, options(t, order.PersonaliseRequire)); err != nil || len(out.Warnings)+len(out.HostKeys) > 0 {
		t.Fatalf("Run = %+v, %v", out, err)
	}
	if !slices.Equal(before, l.Content(t)) {
		t.Error("the disk was written to")
	}
}

// TestBrokenFilesystem: growing what cannot be mounted is a warning.
func TestBrokenFilesystem(t *testing.T) {
	s := agenttest.NewSystem(t, "ext4", "")
	_, w := seat(t, s, s.Size+9<<20)
	zero, err := disk.Buffer(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteCell(zero, agenttest.SystemStart); err != nil {
		t.Fatal(err)
	}
	m, parts := describe(s, 4<<20)
	out, err := Run(t.Context(), w, m, parts, options(t, order.PersonaliseOff))
	if err != nil || len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0], "was not grown") {
		t.Errorf("Run = %+v, %v; want a warning", out, err)
	}
	if _, err := Run(t.Context(), w, m, parts, options(t, order.PersonaliseRequire)); err == nil {
		t.Error("a root that cannot be mounted was personalised")
	}
}
