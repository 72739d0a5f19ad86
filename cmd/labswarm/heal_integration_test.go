//go:build integration

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/images/fixture"
	"labswarm/images/library"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

// TestHealsFromATerminal runs the real programs: server, agent, command line. A bit flips in disk.raw and in the frame
// store while a PC that was just written serves the others. `image scrub --now` finds it, the server fetches the cell back
// from that PC, and the version may be deployed. `image verify` finds the next one, and the server heals it by itself.
func TestHealsFromATerminal(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	testreq.Tool(t, "sfdisk", "fdisk")
	agent := buildAgent(t)
	c := newPlace(t)
	k := fixture.New(t, testreq.Tool)
	root := k.Ext(16<<20, k.Tree(7, 20, 100<<10), "-t", "ext4")
	noise := k.Path("noise.img")
	if err := os.WriteFile(noise, fixture.Random(11, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := k.Disk(26<<20, "label: gpt\nunit: sectors\nstart=2048, size=32768, type=L\nstart=34816, size=12288, type=L\n",
		map[int64]string{1 << 20: root, 17 << 20: noise})
	c.cmd("image", "import", "lab", disk, "--cell", "256KiB")
	c.run("serve", nil, "serve", "--lab-if", testnet.Bridge, "--dhcp", "off", "--boot-dir", c.bootFiles(),
		"--seed-rate", "3MiB") // three seconds for the image: by then the planner knows that another PC is on its way
	c.until("the server is ready", func() bool {
		info, err := c.cli.Server(t.Context())
		return err == nil && info.Ready
	})
	var macs []string
	for i, name := range []string{"pc7", "pc8"} {
		h, err := c.net.AddHost(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mac, err := h.Command(t.Context(), "cat", "/sys/class/net/eth0/address").Output()
		if err != nil {
			t.Fatal(err)
		}
		macs = append(macs, strings.TrimSpace(string(mac)))
		c.cmd("host", "add", name, "--room", "r1", "--mac", macs[i], "--uuid", pcUUID(i))
		if i == 0 {
			c.pc = h
		}
	}
	c.cmd("job", "create", "--image", "lab", "--room", "r1", "--confirm", "r1")
	for i, mac := range macs { // the second one boots and gets no further, so that the first one stays for it
		get := fmt.Sprintf(`exec 3<>/dev/tcp/%s/80; printf 'GET /boot.ipxe?uuid=%s&mac=%s HTTP/1.0\r\nHost: s\r\n\r\n' >&3; sed '/vmlinuz/q' <&3`,
			testnet.ServerIP, pcUUID(i), mac)
		if out, err := c.pc.Command(t.Context(), "bash", "-c", get).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("vmlinuz")) {
			t.Fatalf("PC %d is not sent to the agent: %v\n%s", i, err, out)
		}
	}
	c.startAgent(agent, pcUUID(0))
	c.until("pc7 is written and serves", func() bool {
		j, err := c.cli.Job(t.Context(), 1)
		if err != nil || j.Slots[0].State == api.StateFailed || j.Slots[0].State == api.StateRebooting {
			t.Fatalf("job: %+v, %v", j.Slots, err)
		}
		return j.Slots[0].State == api.StateDone
	})

	c.rotStore(20)
	out := c.cmd("image", "scrub", "lab", "--now")
	if !bytes.Contains(out, []byte("1 cells were fetched back from pc7")) {
		t.Errorf("image scrub --now: %s", out)
	}
	if out := c.cmd("image", "show", "lab"); bytes.Contains(out, []byte("QUARANTINE")) {
		t.Errorf("after the repair: %s", out)
	}

	c.rotStore(22, 25)
	if out, code := c.fails("image", "verify", "lab"); code != 1 || !strings.Contains(out, "in quarantine") {
		t.Errorf("image verify of a damaged version: exit code %d\n%s", code, out)
	}
	state := func() api.ImageState {
		list, err := c.cli.ImageStates(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("states: %+v, %v", list, err)
		}
		return list[0]
	}
	if s := state(); !strings.Contains(s.Quarantine, "2 cells are damaged") {
		t.Errorf("after image verify: %+v; want quarantine", s)
	}
	c.until("the server has healed them by itself", func() bool { return len(state().Bad) == 0 })
	if s := state(); s.Quarantine == "" || !strings.Contains(s.Healing, "2 cells were fetched back from pc7") {
		t.Errorf("while the job runs: %+v; want quarantine until every cell was read", s)
	}
	if out, code := c.fails("job", "create", "--image", "lab", "--room", "r1", "--confirm", "r1"); code == 0 || !strings.Contains(out, "quarantine") {
		t.Errorf("a job with a version in quarantine: exit code %d\n%s", code, out)
	}
	if out := c.cmd("image", "scrub", "lab", "--now"); !bytes.Contains(out, []byte("are right")) {
		t.Errorf("image scrub --now: %s", out)
	}
	if s := state(); s.Quarantine != "" {
		t.Errorf("after every cell was read: %+v", s)
	}
	if out := c.cmd("image", "verify", "lab"); !bytes.Contains(out, []byte("are right")) {
		t.Errorf("image verify: %s", out)
	}
}

func pcUUID(i int) string { return fmt.Sprintf("11111111-2222-3333-4444-55555555550%d", 7+i) }

// startAgent runs the real agent on the PC until the test ends.
func (c *campus) startAgent(agent, uuid string) {
	c.t.Helper()
	keys, err := config.LoadKeys(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	pins := c.json("pins.json", map[string][]string{"server_keys": {base64.StdEncoding.EncodeToString(keys.ServerPublic())}, "image_keys": {base64.StdEncoding.EncodeToString(keys.ImagePublic())}})
	evidence := c.json("evidence.json", api.Evidence{UUID: uuid, Serial: "PC-7"})
	loop := agenttest.NewLoop(c.t, make([]byte, 32<<20))
	p := &program{}
	cmd := c.pc.Command(c.t.Context(), agent, "--server", testnet.ServerIP+":7440", "--disk", loop.Dev, "--allow-loop", "--pins", pins, "--evidence", evidence)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if p.Process, err = testnet.Start(cmd); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			c.t.Error(err)
		}
		if c.t.Failed() {
			c.t.Logf("the agent said:\n%s", p.log.String())
		}
	})
}

// fails runs one of the admin's commands that is to fail.
func (c *campus) fails(args ...string) (out string, code int) {
	c.t.Helper()
	raw, err := exec.CommandContext(c.t.Context(), "labswarm", append(args, "--state-dir", c.dir)...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	return string(raw), code
}

// rotStore flips a bit of each piece in the server's disk.raw, and one in its compressed form. The pieces hold noise,
// which stands in its frame as it is.
func (c *campus) rotStore(pieces ...int) {
	c.t.Helper()
	keys, err := config.LoadKeys(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	lib, err := library.Open(filepath.Join(c.dir, "images"), keys.Image, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	v, err := lib.Get("lab", "")
	if err != nil {
		c.t.Fatal(err)
	}
	defer v.Close()
	m := v.Manifest()
	raw, zst := filepath.Join(v.Dir(), "disk.raw"), filepath.Join(v.Dir(), "frames.zst")
	frames, err := os.ReadFile(zst)
	if err != nil {
		c.t.Fatal(err)
	}
	cell := make([]byte, m.Cell)
	for _, p := range pieces {
		if err := v.ReadPiece(p, cell); err != nil {
			c.t.Fatal(err)
		}
		at := bytes.Index(frames, cell[4096:4096+64])
		if at < 0 {
			c.t.Fatalf("piece %d is not in frames.zst as it is", p)
		}
		for path, off := range map[string]int64{raw: m.CellOf(p)*m.Cell + 4100, zst: int64(at) + 4} {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				b := make([]byte, 1)
				if _, err = f.ReadAt(b, off); err == nil {
					_, err = f.WriteAt([]byte{b[0] ^ 1}, off)
				}
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				c.t.Fatal(err)
			}
		}
	}
}
