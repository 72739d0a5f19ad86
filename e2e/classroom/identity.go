package classroom

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A personalised filesystem is compared file by file, because a changed file moves
// blocks: both are mounted read-only by the kernel's own driver, and every path must
// be the same in kind, mode, owner, size, time, link target and content, except the
// paths that own knows, each of which has its own rule. Nothing here is shared with
// the agent's package personalise.

// ownPart is a partition that the agent may have personalised.
type ownPart struct {
	image, disk, host string
	kind              string
	in, on            span // its place in the image and on the disk, where it may have grown
	esp               bool // an EFI partition beside an NTFS one: it gets a host file
}

// isESP tells whether a partition is for the firmware (GPT and MBR).
func isESP(p partition) bool {
	return strings.EqualFold(p.Type, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B") || strings.EqualFold(p.Type, "ef")
}

// compare compares the partition by its files. It returns 0 when the partition holds
// nothing of the PC's own and is to be compared by bytes.
func (o *ownPart) compare(ctx context.Context, same func(string, span) error, where string) (n int, err error) {
	differ := func(err error) error { return &DifferError{o.disk, where, o.on.from, err.Error()} }
	switch {
	case o.kind == "vfat" && o.esp:
		if err := same(where, span{o.in.from, o.in.from + 512}); err != nil {
			return 0, err
		}
		if n, err = compareESP(ctx, o.image, o.disk, o.host, o.in); err != nil {
			return 0, differ(err)
		}
		return n, nil
	case !strings.HasPrefix(o.kind, "ext") && o.kind != "xfs" && o.kind != "btrfs":
		return 0, nil
	}
	want, err := readTree(ctx, o.image, o.kind, o.in)
	if err != nil || !isSystem(want) {
		return 0, err
	}
	got, err := readTree(ctx, o.disk, o.kind, o.on)
	if err != nil {
		return 0, differ(err)
	}
	if n, err = compareTrees(want, got, o.host); err != nil {
		return 0, differ(err)
	}
	if err := o.grown(); err != nil {
		return 0, differ(err)
	}
	switch o.kind {
	case "xfs":
		err = checkCopy(ctx, o.disk, o.on, "xfs_repair", "-n")
	case "btrfs":
		err = checkCopy(ctx, o.disk, o.on, "btrfs", "check")
	default:
		if err = same(where, span{o.in.from, o.in.from + 1024}); err == nil { // a boot loader's
			return n, fsckExt(ctx, o.disk, where, o.on)
		}
		return 0, err
	}
	if err != nil {
		return 0, differ(err)
	}
	return n, nil
}

// grown wants the filesystem to have grown where its partition has.
func (o *ownPart) grown() error {
	was, err := fsBytes(o.image, o.kind, o.in.from)
	if err != nil {
		return err
	}
	is, err := fsBytes(o.disk, o.kind, o.on.from)
	if err != nil {
		return err
	}
	room := o.on.to - o.on.from
	more := room - (o.in.to - o.in.from)
	// ext4 leaves a last group out that is too small to be of use.
	if is > room || is < was || more >= 16<<20 && is-was < more/2 || more == 0 && is != was {
		return fmt.Errorf("its filesystem has %d bytes in a partition of %d; in the image %d in %d", is, room, was, room-more)
	}
	return nil
}

// fsBytes reads a filesystem's size from its superblock: Documentation/filesystems/ext4/super.rst,
// XFS Algorithms and Data Structures, Btrfs on-disk format.
func fsBytes(file, kind string, at int64) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	sb := make([]byte, 1024)
	off := map[string]int64{"xfs": 0, "btrfs": 64 << 10}[kind]
	if strings.HasPrefix(kind, "ext") {
		off = 1024
	}
	if _, err := f.ReadAt(sb, at+off); err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	be, le := binary.BigEndian, binary.LittleEndian
	switch kind {
	case "xfs":
		return int64(be.Uint64(sb[8:])) * int64(be.Uint32(sb[4:])), nil
	case "btrfs":
		return int64(le.Uint64(sb[0x70:])), nil
	}
	return (int64(le.Uint32(sb[4:])) + int64(le.Uint32(sb[0x150:]))<<32) << (10 + le.Uint32(sb[24:])), nil
}

// entry is one path of a mounted tree, folders included.
type entry struct {
	about string // kind, mode, owner
	data  string // size, time, link target; "" for folders
	sum   string // SHA-256 of the content
	text  string // content of a few files that have rules
}

// listTree prints all of a filesystem as fields that end in NUL, in three passes:
// path and facts of everything, then of what has content, then digests. The mounts
// end with its namespace.
const listTree = `d=$(mktemp -d); trap 'umount "$d" 2> /dev/null; rmdir "$d"' EXIT
mount -t "$1" -o "$2,loop,offset=$4,sizelimit=$5" "$3" "$d"
cd "$d"
find . -mindepth 1 -printf 'about\0%P\0%y %m %U:%G\0'
find . -mindepth 1 ! -type d -printf 'data\0%P\0%s %T@ %l \0'
find . -type f -print0 | xargs -0r sha256sum -z | sed -z 's/^\([0-9a-f]*\)  \.\//sum\x00\1\x00/'
for f in etc/hostname etc/hosts etc/machine-id; do
  if [ -f "$f" ] && [ ! -L "$f" ]; then printf 'text\0%s\0%s\0' "$f" "$(base64 -w0 "$f")"; fi
done
cd /`

// readTree lists the filesystem at p of a raw disk.
func readTree(ctx context.Context, file, kind string, p span) (map[string]*entry, error) {
	opts := map[string]string{"xfs": "ro,norecovery,nouuid", "btrfs": "ro"}[kind]
	if opts == "" {
		opts = "ro,noload"
	}
	out, err := tool(ctx, "unshare", "-m", "--propagation", "private", "sh", "-euc", listTree, "sh", kind, opts, file,
		strconv.FormatInt(p.from, 10), strconv.FormatInt(p.to-p.from, 10))
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: %w", file, err)
	}
	tree := map[string]*entry{}
	f := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 0; i+2 < len(f); i += 3 {
		name, value := f[i+1], f[i+2]
		if f[i] == "sum" { // a digest stands before its name
			name, value = value, name
		}
		e := tree[name]
		switch {
		case f[i] == "about":
			tree[name] = &entry{about: value}
		case e == nil:
			return nil, fmt.Errorf("list the files of %s: %q was not listed before", file, name)
		case f[i] == "data":
			e.data = value
		case f[i] == "sum":
			e.sum = value
		default:
			text, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return nil, fmt.Errorf("list the files of %s: %w", file, err)
			}
			e.text = string(text)
		}
	}
	return tree, nil
}

// isSystem tells whether a tree is the root of a Linux system.
func isSystem(tree map[string]*entry) bool {
	return tree["etc/os-release"] != nil || tree["usr/lib/os-release"] != nil
}

// compareTrees compares a filesystem of the image with the same one of host's disk.
// It returns how many paths were compared.
func compareTrees(want, got map[string]*entry, host string) (int, error) {
	for _, name := range slices.Sorted(maps.Keys(union(want, got))) {
		w, g := want[name], got[name]
		rule, own := ownRule(name, want)
		var err error
		switch {
		case own:
			err = rule(w, g, host)
		case w == nil:
			err = errors.New("it is not in the image")
		case g == nil:
			err = errors.New("it is missing")
		case *w != *g:
			err = fmt.Errorf("it is %s %s %s; in the image %s %s %s", g.about, g.data, g.sum, w.about, w.data, w.sum)
		}
		if err != nil {
			return 0, fmt.Errorf("/%s: %w", name, err)
		}
	}
	for _, name := range mustHave(want) { // also when the image has none
		if got[name] == nil {
			return 0, fmt.Errorf("/%s: it is missing", name)
		}
	}
	return len(want), nil
}

// mustHave lists what every PC has for itself.
func mustHave(image map[string]*entry) []string {
	names := []string{"etc/hostname", "etc/hosts"}
	ssh := image["etc/ssh/sshd_config"] != nil
	for name := range image {
		ssh = ssh || strings.HasPrefix(name, "etc/ssh/ssh_host_")
	}
	if ssh {
		for _, kind := range []string{"ed25519", "ecdsa"} {
			key := "etc/ssh/ssh_host_" + kind + "_key"
			names = append(names, key, key+".pub")
		}
	}
	return names
}

func union(a, b map[string]*entry) map[string]*entry {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

// ownRule returns the rule of a path that a PC has for itself.
func ownRule(name string, image map[string]*entry) (rule func(w, g *entry, host string) error, own bool) {
	switch dir, base := path.Split(name); {
	case name == "etc/hostname":
		return ownHostname, true
	case name == "etc/hosts":
		return ownHosts, true
	case name == "etc/machine-id":
		return ownMachineID, true
	case dir == "etc/ssh/" && strings.HasPrefix(base, "ssh_host_"):
		return func(w, g *entry, _ string) error { return ownKey(base, image, w, g) }, true
	case name == "var/lib/dbus/machine-id" && image[name] != nil && strings.HasPrefix(image[name].about, "f"),
		name == "var/lib/systemd/random-seed", name == "var/lib/NetworkManager/secret_key", name == "etc/udev/rules.d/70-persistent-net.rules",
		strings.HasPrefix(dir, "var/lib/dhc") && strings.Contains(base, ".lease"):
		return func(_, g *entry, _ string) error {
			if g != nil {
				return errors.New("it is the image's and should be gone")
			}
			return nil
		}, true
	}
	return nil, false
}

// sameOwner checks that a file that was there keeps kind, mode and owner.
func sameOwner(w, g *entry) error {
	if g == nil {
		return errors.New("it is missing")
	}
	if w != nil && w.about != g.about {
		return fmt.Errorf("it is %s, in the image %s", g.about, w.about)
	}
	return nil
}

func ownHostname(w, g *entry, host string) error {
	if err := sameOwner(w, g); err != nil {
		return err
	}
	if g.text != host+"\n" {
		return fmt.Errorf("it says %q, not %q", g.text, host)
	}
	return nil
}

// ownHosts wants one line for the PC's own address and every other line as it was.
func ownHosts(w, g *entry, host string) error {
	if err := sameOwner(w, g); err != nil || w == nil {
		return err
	}
	split := func(text string) (others []string, mine [][]string) {
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) > 0 && f[0] == "127.0.1.1" {
				mine = append(mine, f)
			} else {
				others = append(others, line)
			}
		}
		return others, mine
	}
	was, _ := split(w.text)
	is, mine := split(g.text)
	if !slices.Equal(was, is) || len(mine) != 1 || mine[0][len(mine[0])-1] != host {
		return fmt.Errorf("it says %q; in the image %q", g.text, w.text)
	}
	return nil
}

func ownMachineID(w, g *entry, _ string) error {
	if w == nil && g == nil {
		return nil
	}
	if err := sameOwner(w, g); err != nil {
		return err
	}
	if g.text != "" {
		return fmt.Errorf("it says %q; every copy of the image would", g.text)
	}
	return nil
}

// ownKey: no host key of the image is left, and there is a pair of each new kind.
func ownKey(base string, image map[string]*entry, w, g *entry) error {
	kind := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(base, "ssh_host_"), ".pub"), "_key")
	fresh := kind == "ed25519" || kind == "ecdsa" || kind == "rsa" && image["etc/ssh/ssh_host_rsa_key"] != nil
	switch {
	case g == nil && fresh:
		return errors.New("it is missing")
	case g == nil:
		return nil
	case !fresh:
		return errors.New("it should be gone")
	case w != nil && w.sum == g.sum:
		return errors.New("it is the image's")
	case w != nil:
		return sameOwner(w, g)
	}
	if about := map[bool]string{false: "f 600 0:0", true: "f 644 0:0"}[strings.HasSuffix(base, ".pub")]; g.about != about {
		return fmt.Errorf("it is %s, not %s", g.about, about)
	}
	return nil
}
