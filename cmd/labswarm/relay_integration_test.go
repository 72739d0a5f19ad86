//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/images/fixture"
	"labswarm/images/library"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

// relayPatience bounds every wait: the machine is shared.
const relayPatience = 3 * time.Minute

// campus is a server, a relay in another building and a PC behind it, each in a
// namespace of its own.
type campus struct {
	t         *testing.T
	net       *testnet.Net
	relay, pc *testnet.Host
	dir       string // the server's state
	copies    string // the relay's state
	token     api.RelayToken
	cli       *client.Client
	image     *library.Version
}

// TestSecondServer runs the real programs: a relay copies an image, is killed
// in the middle and goes on, and then the real agent of a PC in its room writes
// a disk from it, while the server sends nothing again. A cell that rots on the
// relay meanwhile reaches nobody.
func TestSecondServer(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	testreq.Tool(t, "sfdisk", "fdisk")
	agent := buildAgent(t)
	c := newCampus(t)
	c.run("serve", nil, "serve", "--lab-if", testnet.Bridge, "--dhcp", "off", "--boot-dir", c.bootFiles(), "--seed-rate", "2MiB")
	c.until("the server is ready", func() bool {
		info, err := c.cli.Server(t.Context())
		return err == nil && info.Ready
	})
	c.addRelay()
	c.refusals()
	c.killAndResume()
	relay := c.seed()
	c.wait("a relay that holds everything serves without fetching", func(r api.Relay) bool {
		return r.Alive && len(r.Images) == 1 && r.Images[0].Serving && r.Images[0].Received == 0
	})
	m := c.image.Manifest()

	c.rot(7)
	slot, sent := c.deploy(agent, relay)
	if !slot.Verified || slot.BytesFromPeers < m.ShippedBytes()*9/10 || slot.Parent != "annex" && slot.Parent != "" {
		t.Errorf("the PC had %d of %d bytes from the relay, verified: %v, last parent %q", slot.BytesFromPeers, m.ShippedBytes(), slot.Verified, slot.Parent)
	}
	t.Logf("image bytes: %d; the PC had %d from the relay and %d from the server; the server sent %d in all", m.ShippedBytes(), slot.BytesFromPeers, slot.BytesFromSeed, sent)
	// The rotten cell goes to the relay and perhaps to the PC.
	if most := 4 * m.Cell; sent > most {
		t.Errorf("the server sent %d bytes while the PC was written; want at most %d: its copy went to the relay", sent, most)
	}
	c.wait("the rotten cell is right again", func(r api.Relay) bool {
		return r.Images[0].Have == m.Pieces() && r.Images[0].Received == m.Cell
	})
	if err := relay.Kill(); err != nil {
		t.Error(err)
	}
	c.wait("a silent relay is out", func(r api.Relay) bool { return !r.Alive })
}

func buildAgent(t *testing.T) string {
	t.Helper()
	goTool := testreq.Tool(t, "go", "golang-go")
	bin := filepath.Join(t.TempDir(), "labswarm-agent")
	if out, err := exec.CommandContext(t.Context(), goTool, "build", "-o", bin, "labswarm/initramfs-agent").CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v: %s", err, out)
	}
	return bin
}

// newPlace is the server's namespace and folder alone.
func newPlace(t *testing.T) *campus {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsr") //nolint:usetesting // short: a socket path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c := &campus{t: t, dir: filepath.Join(dir, "s"), copies: filepath.Join(dir, "r")}
	c.cli = client.New(filepath.Join(c.dir, "labswarm.sock"))
	t.Cleanup(c.cli.Close)
	if c.net, err = testnet.New(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.net.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newCampus(t *testing.T) *campus {
	t.Helper()
	c := newPlace(t)
	var err error
	for _, h := range []**testnet.Host{&c.relay, &c.pc} {
		if *h, err = c.net.AddHost(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	k := fixture.New(t, testreq.Tool)
	root := k.Ext(16<<20, k.Tree(7, 20, 100<<10), "-t", "ext4")
	disk := k.Disk(34<<20, "label: gpt\nunit: sectors\nstart=2048, size=32768, type=L\nstart=34816, size=28672, type=L\n",
		map[int64]string{1 << 20: root, 17 << 20: k.Garbage(14 << 20)})
	// Without frames every cell is read from disk.raw, where one is to rot.
	c.cmd("image", "import", "lab", disk, "--cell", "256KiB", "--codec", "none")
	keys, err := config.LoadKeys(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	lib, err := library.Open(filepath.Join(c.dir, "images"), keys.Image, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.image, err = lib.Get("lab", ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.image.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *campus) bootFiles() string {
	c.t.Helper()
	dir := c.t.TempDir()
	for _, f := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "snponly.efi", "ipxe.efi", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return dir
}

// cmd runs one of the admin's commands and returns its output.
func (c *campus) cmd(args ...string) []byte {
	c.t.Helper()
	var errs bytes.Buffer
	cmd := exec.CommandContext(c.t.Context(), "labswarm", append(args, "--state-dir", c.dir)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("labswarm %v: %v\n%s%s", args, err, out, errs.String())
	}
	return out
}

// program is a running labswarm, with what it said.
type program struct {
	*testnet.Process
	log testnet.Output
}

// run starts labswarm on a host, nil = the server's place, until the test ends.
// Its log is shown when the test has failed.
func (c *campus) run(name string, h *testnet.Host, args ...string) *program {
	c.t.Helper()
	state := c.copies
	if h == nil {
		h, state = &testnet.Host{Name: c.net.Name}, c.dir
	}
	p := &program{}
	cmd := h.Command(c.t.Context(), "labswarm", append(args, "--state-dir", state)...)
	cmd.Stdout, cmd.Stderr = io.Discard, &p.log
	var err error
	if p.Process, err = testnet.Start(cmd); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			c.t.Error(err)
		}
		if c.t.Failed() {
			c.t.Logf("%s said:\n%s", name, p.log.String())
		}
	})
	return p
}

func (c *campus) until(what string, cond func() bool) {
	c.t.Helper()
	for end := time.Now().Add(relayPatience); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// wait waits until the relay is as wanted, as `relay ls` shows it.
func (c *campus) wait(what string, ok func(api.Relay) bool) (v api.Relay) {
	c.t.Helper()
	c.until(what, func() bool {
		list, err := c.cli.Relays(c.t.Context())
		if err != nil || len(list) != 1 {
			c.t.Fatalf("relays: %+v, %v", list, err)
		}
		v = list[0]
		return ok(v)
	})
	return v
}

func (c *campus) addRelay() {
	c.t.Helper()
	if err := json.Unmarshal(c.cmd("relay", "add", "annex", "--json"), &c.token); err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(c.copies, 0o700); err != nil {
		c.t.Fatal(err)
	}
	c.file("token", c.token.Token+"\n")
}

func (c *campus) file(name, content string) string {
	c.t.Helper()
	path := filepath.Join(filepath.Dir(c.dir), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// args are those of `labswarm seed`.
func (c *campus) args(token, key string) []string {
	return []string{"seed", "--server", testnet.ServerIP, "--server-key", key, "--token-file", token, "--images", "lab", "--room", "r1", "--link-mbps", "1000"}
}

func (c *campus) seed() *program {
	c.t.Helper()
	return c.run("seed", c.relay, c.args(filepath.Join(filepath.Dir(c.dir), "token"), c.token.ServerKey)...)
}

// refusals: a wrong token and a wrong key end the program with exit code 12,
// and nothing of an image has come.
func (c *campus) refusals() {
	c.t.Helper()
	token := filepath.Join(filepath.Dir(c.dir), "token")
	for name, args := range map[string][]string{
		"wrong token": c.args(c.file("wrong", "lsr-"+strings.Repeat("A", 43)), c.token.ServerKey),
		"wrong key":   c.args(token, "sha256:"+strings.Repeat("00", 32)),
	} {
		ctx, cancel := context.WithTimeout(c.t.Context(), relayPatience)
		defer cancel()
		out, err := c.relay.Command(ctx, "labswarm", append(args, "--state-dir", c.copies)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 12 || !bytes.Contains(out, []byte("refused")) {
			c.t.Errorf("%s: %v; want exit code 12 and a sentence:\n%s", name, err, out)
		}
		if left, err := filepath.Glob(filepath.Join(c.copies, "relay", "images", "*")); err != nil || len(left) > 0 {
			c.t.Errorf("%s: the relay holds %v, %v", name, left, err)
		}
	}
}

// killAndResume kills the relay in the middle of the copy, and wants it to go on
// with what its disk holds.
func (c *campus) killAndResume() {
	c.t.Helper()
	pieces, cell := c.image.Manifest().Pieces(), c.image.Manifest().Cell
	p := c.seed()
	half := c.wait("a third is copied", func(r api.Relay) bool { return len(r.Images) == 1 && r.Images[0].Have > pieces/3 })
	if err := p.Kill(); err != nil {
		c.t.Fatal(err)
	}
	if half.Images[0].Have >= pieces {
		c.t.Fatal("the relay was done before it could be killed")
	}
	p = c.seed()
	v := c.wait("the relay serves", func(r api.Relay) bool { return r.Alive && len(r.Images) == 1 && r.Images[0].Serving })
	if most := int64(pieces-half.Images[0].Have) * cell; v.Images[0].Received > most || v.Images[0].Received == 0 {
		c.t.Errorf("after the kill at %d of %d cells the relay fetched %d bytes; want at most %d", half.Images[0].Have, pieces, v.Images[0].Received, most)
	}
	if err := p.Kill(); err != nil {
		c.t.Fatal(err)
	}
}

// rot destroys 4 KiB of a cell on the relay's disk.
func (c *campus) rot(piece int) {
	c.t.Helper()
	m := c.image.Manifest()
	f, err := os.OpenFile(filepath.Join(c.copies, "relay", "images", "lab", m.Version, "disk.raw"), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{0x5a}, 4096), m.CellOf(piece)*m.Cell)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// deploy writes a disk in the relay's room, and returns what the PC reported and
// what the server's seed sent meanwhile.
func (c *campus) deploy(agent string, relay *program) (api.Slot, int64) {
	c.t.Helper()
	const uuid = "11111111-2222-3333-4444-555555555507"
	mac, err := c.pc.Command(c.t.Context(), "cat", "/sys/class/net/eth0/address").Output()
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmd("host", "add", "pc7", "--room", "r1", "--mac", strings.TrimSpace(string(mac)), "--uuid", uuid)
	before := strings.Count(relay.log.String(), "member of the swarm")
	c.cmd("job", "create", "--image", "lab", "--room", "r1", "--confirm", "r1")
	// A PC takes far longer to boot than the relay to hear of the new job.
	c.until("the relay has the certificate of the job's swarm", func() bool { return strings.Count(relay.log.String(), "member of the swarm") > before })
	// The PC's firmware asks for its script.
	get := fmt.Sprintf(`exec 3<>/dev/tcp/%s/80; printf 'GET /boot.ipxe?uuid=%s&mac=%s HTTP/1.0\r\nHost: s\r\n\r\n' >&3; cat <&3 || true`, // the server may cut the connection after its answer
		testnet.ServerIP, uuid, strings.TrimSpace(string(mac)))
	if out, err := c.pc.Command(c.t.Context(), "bash", "-c", get).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("vmlinuz")) {
		c.t.Fatalf("the PC is not sent to the agent: %v\n%s", err, out)
	}
	loop := agenttest.NewLoop(c.t, make([]byte, 40<<20))
	keys, err := config.LoadKeys(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	pins := c.json("pins.json", map[string][]string{"server_keys": {base64.StdEncoding.EncodeToString(keys.ServerPublic())}, "image_keys": {base64.StdEncoding.EncodeToString(keys.ImagePublic())}})
	evidence := c.json("evidence.json", api.Evidence{UUID: uuid, Serial: "PC-7"})
	ctx, cancel := context.WithTimeout(c.t.Context(), relayPatience)
	defer cancel()
	out, err := c.pc.Command(ctx, agent, "--server", testnet.ServerIP+":7440", "--disk", loop.Dev, "--allow-loop", "--pins", pins, "--evidence", evidence, "--seed-wait", "1s").CombinedOutput()
	if err != nil {
		c.t.Fatalf("the agent: %v\n%s", err, out)
	}
	j, err := c.cli.Job(c.t.Context(), 1)
	if err != nil || len(j.Slots) != 1 {
		c.t.Fatalf("job: %+v, %v", j, err)
	}
	if c.t.Failed() {
		c.t.Logf("the agent said:\n%s", out)
	}
	return j.Slots[0], j.SeedSent
}

func (c *campus) json(name string, v any) string {
	c.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.file(name, string(raw))
}
