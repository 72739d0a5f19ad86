//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"labswarm/api"
	"labswarm/images/fixture"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

var updateScreens = flag.Bool("update-screens", false, "write docs/screens anew")

// night is a virtual room: a real server, PCs in namespaces of their own with
// loop devices for disks, the real agent on them, and the real console in a
// terminal.
type night struct {
	*campus
	tty   *screen
	agent string
	pcs   []*seat
}

type seat struct {
	name, mac, uuid string
	host            *testnet.Host
	loop            *agenttest.Loop
}

const seats = 3

// TestNewcomerReimagesRoom: somebody who knows nothing but the keys in the footer
// reimages a room from the console alone: image, when, plan, the room's name, the
// job to its end, its report. What the terminal showed is kept in docs/screens.
func TestNewcomerReimagesRoom(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	testreq.Tool(t, "sfdisk", "fdisk")
	n := &night{campus: newPlace(t), agent: buildAgent(t)}
	n.furnish()
	serve := n.run("serve", nil, n.serveArgs()...)
	n.until("the server is ready", func() bool {
		info, err := n.cli.Server(t.Context())
		return err == nil && info.Ready
	})
	for _, p := range n.pcs {
		n.cmd("host", "add", p.name, "--room", "A101", "--mac", p.mac, "--uuid", p.uuid)
	}

	n.tty = newScreen(t, n.dir, 80, 24, "LC_ALL=C.UTF-8 TERM=xterm-256color")
	n.keep("rooms", "A101", "a01", "a03", "n new job")
	n.tty.keys("n")
	n.keep("newjob-image", "step 1 of 4", ">lab")
	n.tty.keys("Enter")
	n.tty.wait("step 3 of 4", "begins")
	n.tty.keys("Enter")
	n.keep("newjob-plan", "dry run, nothing sent", "WILL ERASE the whole disk of 3 hosts")
	n.tty.keys("Enter")
	n.tty.wait("ERASE 3 DISKS", "Type the room's name, A101", "locked")
	n.tty.keys("A", "1", "0", "2", "Enter")
	n.tty.wait("is not the room's name; nothing was done")
	if jobs, err := n.cli.Jobs(t.Context()); err != nil || len(jobs) > 0 {
		t.Fatalf("a wrong name made a job: %+v, %v", jobs, err)
	}
	n.tty.keys("BSpace", "1")
	n.keep("confirm", "enter goes on")
	n.tty.keys("Enter")
	n.keep("job-armed", "job 1 is made", "0 of 3 verified", "armed", "MiB/s, all hosts")

	n.bootAll()
	n.tty.wait("3 of 3 verified", "ok ")
	n.until("the job has ended", func() bool {
		j, err := n.cli.Job(t.Context(), 1)
		return err == nil && !j.Ended.IsZero()
	})
	n.tty.keys("g")
	n.keep("job", "3 of 3 verified", "took", "v relays", "up confirmed", "MiB/s, all hosts")
	n.tty.keys("R")
	n.keep("report", "Report of job 1", "OK  3 of 3", "NEW IMAGE  3", "a01 a02 a03", "FIGURES")
	n.tty.keys("3")
	n.tty.wait("1 versions", ">lab")
	n.tty.keys("Enter")
	n.keep("images", "lab", "1 versions", "manifest")
	n.tty.keys("5")
	n.keep("hosts", "a01", "a03")

	// Somebody kills the server: the console says so, keeps what it knows, locks
	// what would act on it, and goes on when the server is back.
	if err := serve.Kill(); err != nil {
		t.Fatal(err)
	}
	n.tty.wait("STALE", "reconnecting", "a03")
	n.tty.keys("1", "n")
	n.tty.wait("n: not while the picture is old")
	n.run("serve", nil, n.serveArgs()...)
	n.tty.wait("live")
	n.tty.keys("g")
	n.tty.wait("live", "n new job")
	n.tty.keys("q")
	n.tty.wait("exit=0")
}

func (n *night) serveArgs() []string {
	return []string{"serve", "--lab-if", testnet.Bridge, "--dhcp", "off", "--boot-dir", n.bootFiles()}
}

// furnish makes the PCs and imports the image.
func (n *night) furnish() {
	t := n.t
	t.Helper()
	for i := range seats {
		h, err := n.net.AddHost(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mac, err := h.Command(t.Context(), "cat", "/sys/class/net/eth0/address").Output()
		if err != nil {
			t.Fatal(err)
		}
		n.pcs = append(n.pcs, &seat{name: fmt.Sprintf("a%02d", i+1), mac: strings.TrimSpace(string(mac)), uuid: fmt.Sprintf("11111111-2222-3333-4444-5555555555%02d", i+1),
			host: h, loop: agenttest.NewLoop(t, make([]byte, 18<<20))})
	}
	k := fixture.New(t, testreq.Tool)
	root := k.Ext(16<<20, k.Tree(7, 20, 100<<10), "-t", "ext4")
	n.cmd("image", "import", "lab", k.Disk(18<<20, "label: gpt\nunit: sectors\nstart=2048, size=32768, type=L\n", map[int64]string{1 << 20: root}), "--cell", "256KiB")
}

// bootAll switches the PCs on: their firmware asks for its script, the agent does
// its work, the PC restarts and asks again.
func (n *night) bootAll() {
	t := n.t
	t.Helper()
	keys, err := config.LoadKeys(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	pins := n.json("pins.json", map[string][]string{"server_keys": {base64.StdEncoding.EncodeToString(keys.ServerPublic())}, "image_keys": {base64.StdEncoding.EncodeToString(keys.ImagePublic())}})
	ends := make([]error, len(n.pcs))
	var all sync.WaitGroup
	for i, p := range n.pcs {
		evidence := n.json("evidence-"+p.name+".json", api.Evidence{UUID: p.uuid, Serial: "PC-" + p.name})
		args := []string{"--server", testnet.ServerIP + ":7440", "--disk", p.loop.Dev, "--allow-loop", "--pins", pins, "--evidence", evidence, "--seed-wait", "1s"}
		all.Go(func() { ends[i] = p.boot(t.Context(), n.agent, args) })
	}
	all.Wait()
	if err := errors.Join(ends...); err != nil {
		t.Fatal(err)
	}
}

// boot is one PC from power-on to its second start.
func (p *seat) boot(ctx context.Context, agent string, args []string) error {
	if err := p.firmware(ctx, "vmlinuz"); err != nil {
		return err
	}
	var log testnet.Output
	cmd := p.host.Command(ctx, agent, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	proc, err := testnet.Start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-proc.Done():
	case <-ctx.Done():
		return errors.Join(ctx.Err(), proc.Kill())
	}
	if err := proc.Err(); err != nil {
		return fmt.Errorf("the agent of %s: %w\n%s", p.name, err, log.String())
	}
	return p.firmware(ctx, "exit")
}

// firmware asks as a PC's network card does, and wants a word in the script.
func (p *seat) firmware(ctx context.Context, want string) error {
	get := fmt.Sprintf(`exec 3<>/dev/tcp/%s/80; printf 'GET /boot.ipxe?uuid=%s&mac=%s HTTP/1.0\r\nHost: s\r\n\r\n' >&3; cat <&3 || true`, // the server may cut the connection after its answer
		testnet.ServerIP, p.uuid, p.mac)
	out, err := p.host.Command(ctx, "bash", "-c", get).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte(want)) {
		return fmt.Errorf("%s asks for its boot script: %w; want %q in\n%s", p.name, err, want, out)
	}
	return nil
}

// keep waits for a screen and compares it with docs/screens, whose figures are
// those of the night in which it was written.
func (n *night) keep(name string, words ...string) {
	t := n.t
	t.Helper()
	shown := strings.TrimRight(n.tty.wait(words...), "\n") + "\n"
	path := filepath.Join("..", "..", "docs", "screens", name+".txt")
	if *updateScreens {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(shown), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read the kept screen (-update-screens writes it): %v", err)
	}
	if want, got := canonical(string(kept)), canonical(shown); want != got {
		t.Errorf("%s is not what the console shows; without figures:\nkept  %s\nshown %s\nthe screen:\n%s", path, want, got, shown)
	}
}

// volatile is what differs from night to night, and what stands for it.
var volatile = []struct {
	re *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`\bslowest \S+`), "slowest PC"},
	{regexp.MustCompile(`estimate [^\n]*`), "estimate"}, // cut where its figures end
	{regexp.MustCompile(`\d+ more lines below|\d\+-*`), ""},
	{regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}`), "MAC"},
	{regexp.MustCompile(`\b[0-9a-f]{40,64}\b`), "HASH"},
	{regexp.MustCompile(`[0-9a-f-]{8,}~`), "CUT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d(\.\d+)?`), "DATE"},
	{regexp.MustCompile(`(\d+ (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) )?\b\d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`[█░#]+|[⠀-⣿]+|-{2,}`), ""},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?[KMGT]?i?B(/s)?\b`), "BYTES"},
	{regexp.MustCompile(`\b\d+m\d+s\b|\b\d+:\d\d\b|\b\d+(\.\d+)?s\b`), "SPAN"},
	{regexp.MustCompile(`\b\d+(\.\d+)?\b`), "N"},
	{regexp.MustCompile(`\s+`), " "},
}

func canonical(s string) string {
	for _, v := range volatile {
		s = v.re.ReplaceAllString(s, v.as)
	}
	return strings.TrimSpace(s)
}
