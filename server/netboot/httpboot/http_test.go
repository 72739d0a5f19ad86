package httpboot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/bootreq"
	"labswarm/server/netboot/desk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type decider struct {
	mu      sync.Mutex
	by      map[string]decide.Action
	asked   []bootreq.Request
	fetched []string
}

func (d *decider) DecideBoot(_ context.Context, r bootreq.Request) bootreq.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r)
	return bootreq.Answer{Decision: decide.Decision{Action: d.by[r.MAC]}}
}
func (d *decider) Sighting(bootreq.Sighting) {}
func (d *decider) InitramfsFetched(mac string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetched = append(d.fetched, mac)
}

func (d *decider) set(mac string, a decide.Action) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.by[mac] = a
}

// wait lets the events after the last byte arrive; want is the whole list.
func (d *decider) wait(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		d.mu.Lock()
		got := fmt.Sprint(d.fetched)
		d.mu.Unlock()
		if got == want {
			return
		}
		if len(got) > len(want) || time.Now().After(deadline) {
			t.Fatalf("initramfs fetches = %s; want %s", got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

const (
	mac  = "52:54:00:77:00:01"
	uuid = "00112233-4455-6677-8899-aabbccddeeff"
)

var big = bytes.Repeat([]byte("0123456789abcdef"), 20_000)

func serve(t *testing.T) (base string, dec *decider) {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{"shimx64.efi", "grubx64.efi", "undionly.kpxe", "vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(dir, n), big, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pins, err := bootfile.PinsJSON([][]byte{make([]byte, 32)}, [][]byte{make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	files, err := bootfile.Load(dir, pins)
	if err != nil {
		t.Fatal(err)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	scripts, err := bootfile.NewScripts(bootfile.Site{IP: lo, KeyID: "00"})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	dec = &decider{by: map[string]decide.Action{}}
	s, err := Listen(t.Context(), Config{IP: lo, Port: freePort(t), Files: files, Scripts: scripts, Log: log,
		Desk: desk.New(desk.Config{Decider: dec, Files: files, Log: log})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "http://" + s.Addr().String(), dec
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

type result struct {
	status int
	body   string
	header http.Header
}

func do(t *testing.T, method, url string, header ...string) result {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // firmware follows none
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result{resp.StatusCode, string(b), resp.Header}
}

func TestPathsWithoutRedirect(t *testing.T) {
	base, _ := serve(t)
	for _, p := range []string{"//grubx64.efi", "/grubx64.efi", "/%5Cgrubx64.efi", "/./x/../grubx64.efi", "/../grubx64.efi"} {
		if got := do(t, "GET", base+p); got.status != 200 || got.body != string(big) {
			t.Errorf("GET %s: %d, %d bytes; want 200 and the file, firmware follows no redirect", p, got.status, len(got.body))
		}
	}
	for _, p := range []string{"/", "/etc/passwd", "/../../etc/passwd", "/vmlinuz", "/initrd.img", "/GRUBX64.EFI", "/api/v1/jobs", "/agent/v1/order"} {
		if got := do(t, "GET", base+p); got.status != 404 {
			t.Errorf("GET %s: %d; want 404", p, got.status)
		}
	}
	if got := do(t, "POST", base+"/boot.ipxe"); got.status != 405 {
		t.Errorf("POST: %d; want 405", got.status)
	}
}

func TestHeadEqualsGet(t *testing.T) {
	base, dec := serve(t)
	dec.set(mac, decide.Agent)
	do(t, "GET", base+"/boot.ipxe?mac="+mac)
	for _, p := range []string{"/boot.ipxe?mac=" + mac, "/host.cfg?mac=" + mac + "&uuid=" + uuid, "/grub/grub.cfg", "/autoexec.ipxe", "/shimx64.efi", "/vmlinuz", "/initrd.img"} {
		get, head := do(t, "GET", base+p), do(t, "HEAD", base+p)
		if get.status != 200 || head.status != 200 || head.body != "" {
			t.Errorf("%s: GET %d, HEAD %d with %d bytes", p, get.status, head.status, len(head.body))
		}
		for _, k := range []string{"Content-Length", "Content-Type", "Cache-Control"} {
			if get.header.Get(k) == "" || get.header.Get(k) != head.header.Get(k) {
				t.Errorf("%s: %s is %q by GET and %q by HEAD", p, k, get.header.Get(k), head.header.Get(k))
			}
		}
		if get.header.Get("Content-Length") != strconv.Itoa(len(get.body)) {
			t.Errorf("%s: Content-Length %s for %d bytes", p, get.header.Get("Content-Length"), len(get.body))
		}
	}
}

func TestScriptsRenderTheDecision(t *testing.T) {
	base, dec := serve(t)
	q := "?mac=52-54-00-77-00-01&uuid={" + strings.ToUpper(uuid) + "}"
	for a, want := range map[decide.Action][2]string{
		decide.Local:  {"sanboot", "chainloader"},
		decide.Ignore: {"sanboot", "chainloader"},
		decide.Agent:  {"BOOTIF=01-52-54-00-77-00-01", "linux  (http,127.0.0.1:"},
		decide.Hold:   {"HOLD", "HOLD"},
	} {
		dec.set(mac, a)
		if got := do(t, "GET", base+"/boot.ipxe"+q); !strings.Contains(got.body, want[0]) {
			t.Errorf("%v: boot.ipxe = %q", a, got.body)
		}
		for range 2 { // asked twice within 2 ms under HTTP boot: idempotent
			got := do(t, "GET", base+"/host.cfg"+q)
			if a == decide.Agent {
				want[1] = "linux  (http,127.0.0.1"
			}
			if !strings.Contains(got.body, want[1]) {
				t.Errorf("%v: host.cfg = %q", a, got.body)
			}
		}
	}
	dec.mu.Lock()
	defer dec.mu.Unlock()
	for _, r := range dec.asked {
		if r.MAC != mac || r.UUID != uuid || r.IP.String() != "127.0.0.1" {
			t.Errorf("asked %+v; want the canonical MAC and UUID", r)
		}
	}
}

func TestQueryIsNeverEchoed(t *testing.T) {
	base, dec := serve(t)
	dec.set("", decide.Agent)
	for _, q := range []string{"?mac=%0areboot&uuid=$(reboot)", "?mac=" + mac + "%0aecho+pwned", "?mac=" + strings.Repeat("a", 4000)} {
		for _, p := range []string{"/boot.ipxe", "/host.cfg"} {
			got := do(t, "GET", base+p+q)
			if got.status != 200 || strings.Contains(got.body, "pwned") || strings.Contains(got.body, "$(") || strings.Contains(got.body, "aaaa") {
				t.Errorf("GET %s%.40s: %d %q", p, q, got.status, got.body)
			}
		}
	}
}

func TestKernelOnlyAfterAgentAnswer(t *testing.T) {
	base, dec := serve(t)
	do(t, "GET", base+"/boot.ipxe?mac="+mac) // local
	if got := do(t, "GET", base+"/vmlinuz"); got.status != 404 {
		t.Errorf("unarmed host: kernel %d; want 404", got.status)
	}
	dec.set(mac, decide.Agent)
	do(t, "HEAD", base+"/host.cfg?mac="+mac)
	if got := do(t, "GET", base+"/vmlinuz"); got.status != 404 {
		t.Errorf("HEAD opened a session: kernel %d; want 404", got.status)
	}
	do(t, "GET", base+"/host.cfg?mac="+mac)
	if got := do(t, "GET", base+"/vmlinuz"); got.status != 200 || got.body != string(big) {
		t.Errorf("armed host: kernel %d, %d bytes", got.status, len(got.body))
	}
	dec.wait(t, "[]") // the kernel does not count
	size := len(do(t, "GET", base+"/initrd.img").body)
	dec.wait(t, "["+mac+"]")
	do(t, "HEAD", base+"/initrd.img")
	do(t, "GET", base+"/initrd.img", "Range", "bytes=0-1023")
	do(t, "GET", base+"/initrd.img", "Range", fmt.Sprintf("bytes=1024-%d", size-1))
	dec.wait(t, "["+mac+" "+mac+"]") // once for the whole file, once for the two ranges
	dec.set(mac, decide.Local)
	if got := do(t, "GET", base+"/initrd.img"); got.status != 404 {
		t.Errorf("after the decision turned local: initramfs %d; want 404", got.status)
	}
}
