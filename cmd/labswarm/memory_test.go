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

// importMemory is what an import may take at most, in KiB, whatever the size of the disk.
const importMemory = 200 << 10

// TestMemoryOfImport imports a sparse disk of 256 GiB, raw and unpacked from qcow2, and looks at the program's peak, which
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
		cmd := exec.CommandContext(t.Context(), "labswarm", "--quiet", "--state-dir", filepath.Join(state, name), "image", "import", name, file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("import %s: %v\n%s", name, err, out)
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok || usage.Maxrss == 0 || usage.Maxrss > importMemory {
			t.Errorf("%s: the import took %d KiB; want at most %d", name, usage.Maxrss, importMemory)
		}
		t.Logf("%s: %d KiB", name, usage.Maxrss)
	}
	if st, err := os.Stat(disk); err != nil || st.Size() != size {
		t.Error(st, err)
	}
}
