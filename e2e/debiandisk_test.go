//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"labswarm/internal/testreq"
)

// debianImage is the golden Debian on a disk of so many MiB, made once.
func debianImage(t *testing.T, name string, mib int) string {
	t.Helper()
	testreq.Tool(t, "mmdebstrap", "mmdebstrap")
	testreq.Tool(t, "mcopy", "mtools")
	testreq.Tool(t, "mkfs.vfat", "dosfstools")
	testreq.Tool(t, "mke2fs", "e2fsprogs")
	testreq.Tool(t, "sfdisk", "fdisk")
	testreq.File(t, "/usr/lib/grub/i386-pc/boot.img", "apt-get install grub-pc-bin")
	img := filepath.Join(repo(t), "build", "golden", name+".img")
	script(t, "golden-debian.sh", img, strconv.Itoa(mib))
	return img
}

// copySparse copies a disk without filling its holes.
func copySparse(t *testing.T, src, dst string) error {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", src, dst).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}

// onRoot runs a shell script in the root, the last partition, of a raw disk and returns
// what it prints. The mount ends with the script.
func onRoot(t *testing.T, disk, mode, script string) string {
	t.Helper()
	opts := mode
	if mode == "ro" {
		opts += ",noload"
	}
	cmd := exec.CommandContext(t.Context(), testreq.Tool(t, "unshare", "util-linux"), "-m", "--propagation", "private", "sh", "-euc", `
set -- "$1" "$2" $(sfdisk -d "$1" | sed -n 's/.*start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2/p' | tail -1)
d=$(mktemp -d); trap 'cd /; umount "$d"; rmdir "$d"' EXIT
mount -t ext4 -o "$2,loop,offset=$(($3 * 512)),sizelimit=$(($4 * 512))" "$1" "$d"
cd "$d"
(`+script+"\n)", "sh", disk, opts)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", disk, err, errOut.String())
	}
	return string(out)
}
