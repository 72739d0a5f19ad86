package testnet

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain doubles as the helper of TestChildDiesWithParent.
func TestMain(m *testing.M) {
	if os.Getenv("TESTNET_HELPER") == "1" {
		p, err := Start(exec.Command("sleep", "1000")) // dies with us: that is the test
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.Pid)
		select {}
	}
	goleak.VerifyTestMain(m)
}

// TestChildDiesWithParent kills a process that started a child and expects the
// child gone too.
func TestChildDiesWithParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "TESTNET_HELPER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("helper said %q", line)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("child %d does not run: %v", child, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for range 500 {
		if !runs(child) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("child %d outlived its parent", child)
}

// runs reports whether a process exists and is no zombie.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestProcessEnd(t *testing.T) {
	p, err := Start(exec.CommandContext(t.Context(), "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Err() == nil {
		t.Error("a terminated child reports success")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill of an ended child: %v", err)
	}
	if _, err := Start(exec.CommandContext(t.Context(), "/nonexistent/program")); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func TestStale(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want bool
	}{
		{fmt.Sprintf("%s%d-%d-1", prefix, os.Getpid(), start), false},
		{fmt.Sprintf("%s%d-%d-1-r", prefix, os.Getpid(), start), false},
		{fmt.Sprintf("%s%d-%d-1", prefix, os.Getpid(), start+1), true}, // the id was used again
		{prefix + "2000000000-1-1-r", true},                            // above any process id
		{prefix + "x-1-1", false},
		{prefix + "1", false},
		{"office", false},
	} {
		if got := stale(tt.name); got != tt.want {
			t.Errorf("stale(%q) = %v; want %v", tt.name, got, tt.want)
		}
	}
}
