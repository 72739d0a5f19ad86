package classroom

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/internal/testvm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOptionsNameTheFlag checks that each wrong option is refused with the flag's
// name, all of them at once.
func TestOptionsNameTheFlag(t *testing.T) {
	file := filepath.Join(t.TempDir(), "My Image_1.raw")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    Options
		want []string
	}{
		{"nothing", Options{}, []string{"--image NAME or --image-file FILE"}},
		{"both", Options{Image: "a", ImageFile: file}, []string{"exclude each other"}},
		{"name without store", Options{Image: "a"}, []string{"--state-dir"}},
		{"no such file", Options{ImageFile: file + "x"}, []string{"--image-file", "no such file"}},
		{"folder", Options{ImageFile: t.TempDir()}, []string{"not a regular file"}},
		{"several", Options{ImageFile: file, Terminals: 65, DiskBytes: 100, DHCP: "x", UI: "y", DiskBus: "floppy"},
			[]string{"--terminals 65", "--disk-size", `--dhcp "x"`, `--ui "y"`, "--disk-bus"}},
		{"check without file", Options{Image: "a", StateDir: "/s", CheckDisks: true}, []string{"--check-disks needs --image-file"}},
	} {
		err := tt.o.defaults()
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not mention %q", tt.name, err, w)
			}
		}
	}
	o := Options{ImageFile: file}
	if err := o.defaults(); err != nil {
		t.Fatal(err)
	}
	if o.ImageName != "my-image-1" || o.Terminals != 3 || o.DiskBytes != 8<<30 || len(o.Firmware) != 3 || o.DHCP != DHCPProxy {
		t.Errorf("defaults: %+v", o)
	}
}

func TestParseFirmwares(t *testing.T) {
	got, err := ParseFirmwares("bios, secureboot")
	if d := cmp.Diff([]testvm.Firmware{testvm.BIOS, testvm.SecureBoot}, got); err != nil || d != "" {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if _, err := ParseFirmwares("bios,coreboot"); err == nil || !strings.Contains(err.Error(), "coreboot") {
		t.Errorf("unknown firmware: %v", err)
	}
}

// TestReportKeys pins the report's keys: other tools read them.
func TestReportKeys(t *testing.T) {
	zero := time.Unix(1000, 0)
	slot := &api.Slot{Timeline: []api.TimelineEntry{{At: zero.Add(2500 * time.Millisecond), Event: "ENROLLED"}}}
	own := []api.TimelineEntry{{At: zero, Event: "power on"}, {At: zero.Add(9 * time.Second), Event: "reset"}}
	r := Report{
		Image: ImageReport{"debian", "1", 4 << 20, 4}, SeedBytesSent: 4 << 20, SeedWireBytes: 1 << 20, DurationS: 12.5,
		Hosts: []HostReport{{
			Name: "pc01", MAC: "52:54:00:77:00:01", Firmware: "bios", State: api.StateConfirmed, Attempts: 1,
			BytesFromSeed: 4 << 20, CellsWritten: 4, Verified: true, LocalOS: true, Timeline: timeline(zero, slot, own),
		}},
	}
	path := filepath.Join(t.TempDir(), "deep", "report.json")
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal([]byte(`{"image":{"name":"debian","version":"1","bytes_shipped":4194304,"cells":4},
		"seed_bytes_sent":4194304,"seed_wire_bytes":1048576,"duration_s":12.5,"hosts":[{"name":"pc01","mac":"52:54:00:77:00:01","firmware":"bios",
		"state":"CONFIRMED","attempts":1,"bytes_from_seed":4194304,"bytes_from_peers":0,"cells_written":4,"cells_kept":0,
		"verified":true,"local_os":true,"error":"","timeline":[{"t_s":0,"event":"power on"},{"t_s":2.5,"event":"ENROLLED"},
		{"t_s":9,"event":"reset"}]}]}`), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("report (-want +got)\n%s", d)
	}
	if s, ok := powerOnToAgent(r.Hosts[0]); !ok || s != 2.5 {
		t.Errorf("power-on to agent = %v, %v; want 2.5", s, ok)
	}
}

func TestExitCode(t *testing.T) {
	good := HostReport{State: api.StateConfirmed, Verified: true, LocalOS: true}
	unseen := good
	unseen.LocalOS = false
	unequal := good
	unequal.Error = "disk differs"
	for _, tt := range []struct {
		name  string
		hosts []HostReport
		want  int
	}{
		{"all", []HostReport{good, good}, ExitOK},
		{"one system not seen", []HostReport{good, unseen}, ExitPartial},
		{"one disk differs", []HostReport{unequal, good}, ExitPartial},
		{"none", []HostReport{unseen, unequal}, ExitFailed},
		{"no hosts", nil, ExitFailed},
	} {
		if got := (&Report{Hosts: tt.hosts}).ExitCode(); got != tt.want {
			t.Errorf("%s: exit code %d; want %d", tt.name, got, tt.want)
		}
	}
	if got := (*Report)(nil).ExitCode(); got != ExitFailed {
		t.Errorf("no report: exit code %d", got)
	}
}
