//go:build integration

package interop

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/images/library"
	"labswarm/internal/testnet"
	"labswarm/internal/testreq"
	"labswarm/server/config"
)

// patience is far beyond what any step takes (seconds): the machine is shared.
const patience = 3 * time.Minute

// lan is a school's network with one server that holds one image.
type lan struct {
	t       *testing.T
	net     *testnet.Net
	dir     string // the server's state
	torrent string // image.torrent, as it lies in the library
	name    string // of the torrent's file
	sum     [32]byte
	size    int64
}

// TestStandardClients lets every standard client fetch a whole image from our
// seed and from one of our hosts, and one of our hosts fetch it from the client
// as its only source. Each is a process in a namespace of its own; the server
// is the whole daemon with --plain-peers.
func TestStandardClients(t *testing.T) {
	testreq.Root(t)
	testreq.Tool(t, "ip", "iproute2")
	l := newLAN(t)
	server := l.serve()
	host := l.host()
	hostDir := t.TempDir()
	// The host that serves in the second third: it is filled by our own seed.
	l.start("host", role(t, host, roleArgs{Role: "host", Torrent: l.torrent, Dir: hostDir, Addr: host.IP,
		Source: net.JoinHostPort(testnet.ServerIP, strconv.Itoa(api.PeerPort))})).done()
	l.check("the host", hostDir)
	track := l.host()
	l.start("tracker", role(t, track, roleArgs{Role: "tracker", Torrent: l.torrent, Addr: track.IP,
		Seed: net.JoinHostPort(host.IP, strconv.Itoa(api.PeerPort))})).done()

	for _, c := range standards() {
		t.Run(c.name, func(t *testing.T) {
			c.need(t)
			l := l.in(t)
			pc := l.host()
			t.Run("from our seed", func(t *testing.T) {
				l, dir := l.in(t), t.TempDir()
				before := l.sent()
				p := l.start(c.name, c.command(t, pc, l.torrent, dir, announce(testnet.ServerIP)))
				defer p.stop()
				p.done()
				l.check(c.name, dir)
				if got := l.sent() - before; got < l.size {
					t.Errorf("our seed sent %d bytes; want all %d", got, l.size)
				}
			})
			t.Run("from our host", func(t *testing.T) {
				l, dir := l.in(t), t.TempDir()
				before := l.sent()
				p := l.start(c.name, c.command(t, pc, l.torrent, dir, announce(track.IP)))
				defer p.stop()
				p.done()
				l.check(c.name, dir)
				if got := l.sent() - before; got != 0 {
					t.Errorf("our seed sent %d bytes; want none, the host alone is known to this tracker", got)
				}
			})
			t.Run("to our host", func(t *testing.T) {
				l, from, to := l.in(t), t.TempDir(), t.TempDir()
				l.copyPayload(hostDir, from)
				p := l.start(c.name, c.command(t, pc, l.torrent, from, ""))
				defer p.stop()
				pc2 := l.host()
				got := l.start("host", role(t, pc2, roleArgs{Role: "host", Torrent: l.torrent, Dir: to, Addr: pc2.IP,
					Source: net.JoinHostPort(pc.IP, strconv.Itoa(clientPort))}))
				defer got.stop()
				line := got.done()
				l.check("our host", to)
				if want := fmt.Sprintf("DONE %d 0", l.size); line != want {
					t.Errorf("our host said %q; want %q: every byte from the client, none wrong", line, want)
				}
			})
		})
	}
	server.stop()
}

func announce(ip string) string {
	return "http://" + net.JoinHostPort(ip, strconv.Itoa(api.PlainTrackerPort)) + "/announce"
}

// in is the same network within a subtest.
func (l *lan) in(t *testing.T) *lan {
	c := *l
	c.t = t
	return &c
}

// newLAN builds the network and imports an image that no compression shrinks.
func newLAN(t *testing.T) *lan {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsi") //nolint:usetesting // short: a socket path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	l := &lan{t: t, dir: dir}
	l.importImage()
	if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "snponly.efi", "ipxe.efi", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, "boot", f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if l.net, err = testnet.New(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.net.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// importImage makes an image of a 20 MiB disk with one partition of random bytes.
func (l *lan) importImage() {
	l.t.Helper()
	disk := make([]byte, 20<<20)
	if _, err := rand.Read(disk[1<<20 : 18<<20]); err != nil {
		l.t.Fatal(err)
	}
	e := disk[446:]
	e[4] = 0x83
	binary.LittleEndian.PutUint32(e[8:], 1<<20/512)
	binary.LittleEndian.PutUint32(e[12:], 18<<20/512)
	disk[510], disk[511] = 0x55, 0xaa
	raw := filepath.Join(l.dir, "disk.img")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		l.t.Fatal(err)
	}
	keys, err := config.LoadKeys(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	lib, err := library.Open(filepath.Join(l.dir, "images"), keys.Image, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	v, err := lib.Import(l.t.Context(), library.ImportOptions{Name: "lab", File: raw, Cell: 256 << 10})
	if err != nil {
		l.t.Fatal(err)
	}
	defer v.Close()
	h, buf := sha256.New(), make([]byte, v.Manifest().Cell)
	for i := range v.Manifest().Pieces() {
		if err := v.ReadPiece(i, buf); err != nil {
			l.t.Fatal(err)
		}
		h.Write(buf)
	}
	l.torrent, l.name, l.size = filepath.Join(v.Dir(), "image.torrent"), v.Torrent().Name, v.Torrent().Length()
	l.sum = [32]byte(h.Sum(nil))
}

func (l *lan) host() *testnet.Host {
	l.t.Helper()
	h, err := l.net.AddHost(context.WithoutCancel(l.t.Context()))
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// serve starts the daemon and a job, for only images of jobs are served.
func (l *lan) serve() *process {
	l.t.Helper()
	cmd := role(l.t, &testnet.Host{Name: l.net.Name}, roleArgs{Role: "serve", Dir: l.dir})
	p := l.start("serve", cmd)
	cli := l.client()
	defer cli.Close()
	p.until("the server is ready", func() bool {
		info, err := cli.Server(l.t.Context())
		return err == nil && info.Ready
	})
	if _, err := cli.PutHost(l.t.Context(), api.Host{Name: "a1", Room: "r1", MAC: "52:54:00:00:00:0a"}); err != nil {
		l.t.Fatal(err)
	}
	if _, err := cli.CreateJob(l.t.Context(), api.JobCreate{Image: "lab", Room: "r1", Confirm: "r1"}); err != nil {
		l.t.Fatal(err)
	}
	return p
}

func (l *lan) client() *client.Client { return client.New(filepath.Join(l.dir, "labswarm.sock")) }

// sent counts the image bytes that the server's seed has sent.
func (l *lan) sent() int64 {
	l.t.Helper()
	cli := l.client()
	defer cli.Close()
	j, err := cli.Job(l.t.Context(), 1)
	if err != nil {
		l.t.Fatal(err)
	}
	return j.SeedSent
}

// check compares what somebody has downloaded with the image.
func (l *lan) check(who, dir string) {
	l.t.Helper()
	path := filepath.Join(dir, l.name)
	f, err := os.Open(path)
	if os.IsNotExist(err) { // the stock client renames at the very end
		f, err = os.Open(path + ".part")
	}
	if os.IsNotExist(err) { // and did so between the two
		f, err = os.Open(path)
	}
	if err != nil {
		l.t.Fatalf("%s says it is done: %v", who, err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		l.t.Fatal(err)
	}
	if n != l.size || [32]byte(h.Sum(nil)) != l.sum {
		l.t.Errorf("the %d bytes %s has differ from the image's %d", n, who, l.size)
	}
}

func (l *lan) copyPayload(from, to string) {
	l.t.Helper()
	raw, err := os.ReadFile(filepath.Join(from, l.name))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, l.name), raw, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// process is a child whose output is kept.
type process struct {
	*testnet.Process
	t     *testing.T
	name  string
	lines chan string // of its standard output that begin with DONE
	log   testnet.Output
}

// start runs cmd until the test ends.
func (l *lan) start(name string, cmd *exec.Cmd) *process {
	l.t.Helper()
	p := &process{t: l.t, name: name, lines: make(chan string, 8)}
	r, w, err := os.Pipe()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, &p.log
	p.Process, err = testnet.Start(cmd)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		l.t.Fatal(err)
	}
	go func() { // ends with the process
		defer r.Close()
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			if strings.HasPrefix(sc.Text(), "DONE") {
				p.lines <- sc.Text()
				continue
			}
			fmt.Fprintln(&p.log, sc.Text())
		}
	}()
	l.t.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	if err := p.Kill(); err != nil {
		p.t.Error(err)
	}
}

// done waits until the process says that it is.
func (p *process) done() string {
	p.t.Helper()
	select {
	case line := <-p.lines:
		return line
	case <-p.Done():
		select {
		case line := <-p.lines:
			return line
		default:
		}
		p.t.Fatalf("%s ended: %v\n%s", p.name, p.Err(), p.log.String())
	case <-time.After(patience):
		p.t.Fatalf("%s is not done after %v:\n%s", p.name, patience, p.log.String())
	}
	return ""
}

func (p *process) until(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-p.Done():
			p.t.Fatalf("%s ended before %s: %v\n%s", p.name, what, p.Err(), p.log.String())
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("timed out waiting until %s:\n%s", what, p.log.String())
		}
	}
}
