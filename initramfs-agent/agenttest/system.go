package agenttest

import (
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"labswarm/images/library"
	"labswarm/initramfs-agent/bundle"
	"labswarm/internal/testreq"
)

// The one partition of a System, in bytes.
const (
	SystemStart = 1 << 20
	systemTable = "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nstart=2048, size=%SIZE%, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n"
)

// System is a raw disk with one partition that holds a small Linux tree, made by
// the real mkfs and mount.
type System struct {
	File string // raw disk
	FS   string // ext4, xfs or btrfs
	Size int64  // of the partition, bytes
}

// systemSize is about the smallest that each mkfs takes, or that Btrfs grows from, in MiB.
var systemSize = map[string]int64{"ext4": 24, "xfs": 300, "btrfs": 260}

// Sh runs a shell script in a mount namespace of its own, where mounts end with
// it, and returns what it prints.
func Sh(t testing.TB, script string, args ...string) string {
	t.Helper()
	testreq.Root(t)
	cmd := exec.CommandContext(t.Context(), testreq.Tool(t, "unshare", "util-linux"), append([]string{"-m", "--propagation", "private", "sh", "-euc", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", script, args, err, out)
	}
	return string(out)
}

// tree fills $1 with what personalisation changes and with files it must leave
// alone: modes, owners, links, a sparse file, names in other scripts.
const tree = `
cd "$1"
mkdir -p etc/ssh etc/udev/rules.d usr/lib var/lib/dbus var/lib/systemd var/lib/dhcp var/lib/NetworkManager home/user root dev proc
echo 'NAME="Test Linux"' > usr/lib/os-release; ln -s ../usr/lib/os-release etc/os-release
echo golden > etc/hostname; chmod 640 etc/hostname; chown 0:42 etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 golden.lab.example golden\n::1 localhost # six\n' > etc/hosts
echo 0123456789abcdef0123456789abcdef > etc/machine-id; chmod 444 etc/machine-id
cp etc/machine-id var/lib/dbus/machine-id
for k in rsa ed25519 dsa; do echo "old private $k" > etc/ssh/ssh_host_${k}_key; echo "old public $k" > etc/ssh/ssh_host_${k}_key.pub; chmod 600 etc/ssh/ssh_host_${k}_key; done
echo 'Port 22' > etc/ssh/sshd_config
echo seed > var/lib/systemd/random-seed; echo lease > var/lib/dhcp/dhclient.eth0.leases; echo s > var/lib/NetworkManager/secret_key
echo rule > etc/udev/rules.d/70-persistent-net.rules; echo keep > etc/udev/rules.d/60-own.rules
head -c 300000 /dev/urandom > usr/lib/library; chmod 4755 usr/lib/library
echo hello > home/user/notes; chown 1000:1000 home/user/notes; ln -s /etc/passwd home/user/link; truncate -s 5M home/user/sparse
: > "home/user/name with blank"
`

// NewSystem makes a disk of the filesystem's smallest size. more is a shell script
// that changes the tree in the current folder.
func NewSystem(t testing.TB, fs, more string) *System {
	t.Helper()
	testreq.Filesystem(t, fs)
	testreq.Tool(t, "sfdisk", "fdisk")
	testreq.Tool(t, "mkfs."+fs, map[string]string{"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}[fs])
	s := &System{File: filepath.Join(t.TempDir(), "system.raw"), FS: fs, Size: systemSize[fs] << 20}
	flags := map[string]string{"ext4": "-q -F", "xfs": "-q -f", "btrfs": "-q -f"}[fs]
	Sh(t, `truncate -s $(($2 + 3145728)) "$1"
printf '%s' "$5" | sfdisk -q "$1"
d=$(mktemp -d -p "$(dirname "$1")"); truncate -s $2 "$1.fs"
mkfs.$3 $4 "$1.fs"
mount -o loop "$1.fs" "$d"
(`+strings.ReplaceAll(tree, `cd "$1"`, `cd "$d"`)+"\n"+more+`
)
umount "$d"
dd if="$1.fs" of="$1" bs=1M seek=1 conv=notrunc,sparse status=none
rm "$1.fs"`, s.File, strconv.FormatInt(s.Size, 10), fs, flags, strings.ReplaceAll(systemTable, "%SIZE%", strconv.FormatInt(s.Size/512, 10)))
	return s
}

// List describes every file of the partition at byte 1 MiB of a raw disk: kind,
// mode, owner, size, link target, digest of the content. The filesystem is only
// read, and checked by its own tools.
func List(t testing.TB, fs, file string, size int64) map[string]string {
	t.Helper()
	check := map[string]string{"ext4": "e2fsck -fn", "xfs": "xfs_repair -n", "btrfs": "btrfs check -p"}[fs]
	opts := map[string]string{"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid", "btrfs": "ro"}[fs]
	out := Sh(t, `d=$(mktemp -d -p "$(dirname "$1")"); dev=$(losetup --find --show --read-only --offset 1048576 --sizelimit "$2" "$1")
trap 'cd /; umount "$d" 2> /dev/null; losetup --detach "$dev"' EXIT
`+check+` "$dev" > "$d.log" 2>&1 || { cat "$d.log"; exit 1; }
mount -o `+opts+` "$dev" "$d"
cd "$d"
find . ! -type d -printf '%P\t%y %m %U:%G %s %l\n'
find . -type d -printf '%P\t%y %m %U:%G\n'
find . -type f -exec sha256sum {} + | sed 's/^\([0-9a-f]*\)  \.\/\(.*\)/\2\t \1/'`, file, strconv.FormatInt(size, 10))
	files := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		name, rest, _ := strings.Cut(line, "\t")
		files[name] += rest
	}
	if len(files) < 10 {
		t.Fatalf("%s has no tree:\n%s", file, out)
	}
	return files
}

// Image makes an image of the disk, as `labswarm image import` does.
func (s *System) Image(t testing.TB) *Image {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := []ed25519.PublicKey{pub}
	lib, err := library.Open(t.TempDir(), key, keys)
	if err != nil {
		t.Fatal(err)
	}
	v, err := lib.Import(t.Context(), library.ImportOptions{Name: "system", File: s.File, Cell: 256 << 10, Codec: library.CodecNone})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	im := &Image{Keys: keys, Files: map[string][]byte{"manifest.json": v.ManifestJSON(), "manifest.sig": v.Sig(), "image.torrent": v.TorrentBytes()}}
	if b := v.UsedBin(); b != nil {
		im.Files["used.bin"] = b
	}
	if b := v.HooksBin(); b != nil {
		im.Files["hooks.bin"] = b
	}
	if b := v.HashesBin(); b != nil {
		im.Files["hashes.bin"] = b
	}
	if im.Raw, err = os.ReadFile(s.File); err != nil {
		t.Fatal(err)
	}
	sum := v.Digest()
	if im.Bundle, err = bundle.Load(im.File, keys, hex.EncodeToString(sum[:])); err != nil {
		t.Fatal(err)
	}
	return im
}
