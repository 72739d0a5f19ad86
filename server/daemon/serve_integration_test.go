//go:build integration

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

// serveChild is the server in a process of its own, inside the namespace.
func serveChild(t *testing.T, dir string) {
	cfg := config.Default()
	cfg.StateDir, cfg.Interface, cfg.KernelArgs = dir, testnet.Bridge, "console=ttyS0,115200"
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	err := Run(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	code := 0
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
		var e interface{ ExitCode() int }
		if errors.As(err, &e) {
			code = e.ExitCode()
		}
	}
	os.Exit(code)
}

// getChild prints what a URL answers.
func getChild(t *testing.T, url string) {
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Printf("%d %s\n", res.StatusCode, body)
	if err != nil {
		t.Fatal(err)
	}
	os.Exit(0)
}

// lan is a server in a namespace.
type lan struct {
	t   *testing.T
	net *testnet.Net
	dir string
	log bytes.Buffer
}

func (l *lan) command(env string) *exec.Cmd {
	cmd := l.net.Command(l.t.Context(), os.Args[0], "-test.run=^TestServe$")
	cmd.Env = append(os.Environ(), env)
	return cmd
}

func (l *lan) get(url string) string {
	l.t.Helper()
	out, err := l.command("DAEMON_GET=" + url).CombinedOutput()
	if err != nil {
		l.t.Fatalf("get %s: %v\n%s", url, err, out)
	}
	return string(out)
}

func (l *lan) serve() *testnet.Process {
	l.t.Helper()
	cmd := l.command("DAEMON_DIR=" + l.dir)
	cmd.Stderr = &l.log
	p, err := testnet.Start(cmd)
	if err != nil {
		l.t.Fatal(err)
	}
	cli := client.New(filepath.Join(l.dir, "labswarm.sock"))
	defer cli.Close()
	for range 200 {
		if info, err := cli.Server(l.t.Context()); err == nil && info.Ready {
			return p
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = p.Kill()
	l.t.Fatalf("the server did not get ready:\n%s", l.log.String())
	return nil
}

// TestServe runs the whole daemon on a LAN of its own: every socket, the boot
// answers by HTTP, ports that are taken, a kill, and a clean end.
func TestServe(t *testing.T) {
	if dir := os.Getenv("DAEMON_DIR"); dir != "" {
		serveChild(t, dir)
	}
	if url := os.Getenv("DAEMON_GET"); url != "" {
		getChild(t, url)
	}
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	s := &site{t: t, dir: t.TempDir(), image: "tiny"}
	s.importImage()
	boot := filepath.Join(s.dir, "boot")
	if err := os.MkdirAll(boot, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "snponly.efi", "ipxe.efi", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(boot, f), []byte("content of "+f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := testnet.New(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := &lan{t: t, net: n, dir: s.dir}
	p := l.serve()
	cli := client.New(filepath.Join(s.dir, "labswarm.sock"))
	defer cli.Close()
	const mac, uuid = "52:54:00:00:00:0a", "00112233-4455-6677-8899-aabbccddee0a"
	script := "http://" + testnet.ServerIP + "/boot.ipxe?uuid=%s&mac=%s"
	if _, err := cli.PutHost(t.Context(), api.Host{Name: "a1", Room: "r1", MAC: mac, UUID: uuid}); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.CreateJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1", Confirm: "r1"}); err != nil {
		t.Fatal(err)
	}
	if got := l.get(fmt.Sprintf(script, "00112233-4455-6677-8899-aabbccddee99", "52:54:00:00:00:99")); strings.Contains(got, "vmlinuz") {
		t.Errorf("an unknown PC is sent to the agent:\n%s", got)
	}
	got := l.get(fmt.Sprintf(script, uuid, mac))
	for _, want := range []string{"vmlinuz", "labswarm.server=" + testnet.ServerIP + ":7440", "labswarm.kid=", "BOOTIF=01-52-54-00-00-00-0a", "console=ttyS0,115200"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in the armed host's script:\n%s", want, got)
		}
	}
	j, err := cli.Job(t.Context(), 1)
	if err != nil || j.Slots[0].State != api.StateBooting {
		t.Errorf("slot after the script: %+v, %v", j.Slots, err)
	}

	other := l.command("DAEMON_DIR=" + filepath.Join(s.dir, "other"))
	if err := os.MkdirAll(filepath.Join(s.dir, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(boot, filepath.Join(s.dir, "other", "boot")); err != nil {
		t.Fatal(err)
	}
	out, err := other.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != ExitFailed || !strings.Contains(string(out), "pid") || !strings.Contains(string(out), "port") {
		t.Errorf("second server on taken ports = %v; want exit code 1 naming port and process:\n%s", err, out)
	}
	out, err = l.command("DAEMON_DIR=" + s.dir).CombinedOutput()
	if !errors.As(err, &exit) || exit.ExitCode() != ExitLocked {
		t.Errorf("second server on the same state = %v; want exit code 11:\n%s", err, out)
	}

	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	p = l.serve()
	if j, err = cli.Job(t.Context(), 1); err != nil || j.Slots[0].State != api.StateBooting {
		t.Errorf("slot after a SIGKILL: %+v, %v", j.Slots, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("SIGTERM did not end the server")
	}
	if err := p.Err(); err != nil {
		t.Errorf("SIGTERM: %v; want exit code 0\n%s", err, l.log.String())
	}
}
