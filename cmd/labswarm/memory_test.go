package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

// imageMemory is what an import or a verification may take at most, in KiB, whatever the size of the disk.
const imageMemory = 200 << 10

// TestMemoryOfImport imports a sparse disk of 256 GiB, raw and unpacked from qcow2, verifies it, and looks at the program's peak, which
// Linux never gives lower than that of the process that started it: an upper bound.
func TestMemoryOfImport(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	const size = 256 << 30
	disk := k.Disk(size, "label: gpt\nstart=2048,type=L\n", nil)
	k.Run("e2fsprogs", "", "mke2fs", "-q", "-F", "-t", "ext4", "-E", fmt.Sprintf("offset=%d,lazy_itable_init=1,lazy_journal_init=1", 1<<20), "-N", "100000",
		"-d", k.Tree(3, 200, 300<<10), disk, fmt.Sprintf("%dk", size>>10-2048))
	qcow := k.Path("disk.qcow2")
	k.Run("qemu-utils", "", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, qcow)
	state := t.TempDir()
	for name, file := range map[string]string{"raw": disk, "qcow2": qcow} {
		for _, args := range [][]string{{"import", name, file}, {"verify", name}} {
			cmd := exec.CommandContext(t.Context(), "labswarm", append([]string{"--quiet", "--state-dir", filepath.Join(state, name), "image"}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s %s: %v\n%s", args[0], name, err, out)
			}
			usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok || usage.Maxrss == 0 || usage.Maxrss > imageMemory {
				t.Errorf("%s: %s took %d KiB; want at most %d", name, args[0], usage.Maxrss, imageMemory)
			}
			t.Logf("%s of %s: %d KiB", args[0], name, usage.Maxrss)
		}
	}
	if st, err := os.Stat(disk); err != nil || st.Size() != size {
		t.Error(st, err)
	}
}
