//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labswarm/internal/testvm"
)

// TestInterruptLeavesNothing interrupts `labswarm classroom run` while terminals
// boot, as Ctrl-C does, and expects exit code 130 and everything gone: processes,
// namespaces, temporary files. Killed hard, at least no process may survive it, and
// the next run removes the rest.
func TestInterruptLeavesNothing(t *testing.T) {
	needLAN(t)
	needVMs(t, testvm.BIOS)
	binary, bootDir := programs(t)
	img := tinyImage(t, "tiny")
	tmp := t.TempDir()
	for _, tt := range []struct {
		sig  syscall.Signal
		code int
	}{
		{syscall.SIGKILL, -1}, // first: the second run must sweep what it leaves
		{syscall.SIGINT, 130},
	} {
		cmd := exec.CommandContext(t.Context(), binary, "classroom", "run", "--image-file", img, "--boot-dir", bootDir,
			"--terminals", "2", "--firmware", "bios", "--disk-size", "256MiB")
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for {
			l, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("the classroom ended before a terminal booted: %v", err)
			}
			if strings.Contains(l, "BOOTING") {
				break
			}
		}
		if err := cmd.Process.Signal(tt.sig); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		var ee *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &ee) || ee.ExitCode() != tt.code {
			t.Errorf("%v: ended with %v; want exit code %d\n%s", tt.sig, err, tt.code, rest)
		}
		pid := cmd.Process.Pid
		if left := processes(t, filepath.Join(tmp, fmt.Sprintf("labswarm-classroom-%d-", pid))); len(left) > 0 {
			t.Errorf("%v: processes are left: %q", tt.sig, left)
		}
		if tt.sig == syscall.SIGKILL {
			continue
		}
		if spaces, err := filepath.Glob(fmt.Sprintf("/run/netns/labswarm-%d-*", pid)); err != nil || len(spaces) > 0 {
			t.Errorf("%v: namespaces are left: %q %v", tt.sig, spaces, err)
		}
		if files, err := os.ReadDir(tmp); err != nil || len(files) > 0 {
			t.Errorf("%v: temporary files are left: %v %v", tt.sig, files, err)
		}
	}
}

// processes lists the command lines and working folders below dir, after giving
// processes that are being killed 5 s to go.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	for range 50 {
		left = nil
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			cwd, _ := os.Readlink(p + "/cwd")      // the process may have ended
			args, _ := os.ReadFile(p + "/cmdline") // likewise
			if strings.Contains(cwd, dir) || strings.Contains(string(args), dir) {
				left = append(left, strings.ReplaceAll(string(args), "\x00", " "))
			}
		}
		if len(left) == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}
