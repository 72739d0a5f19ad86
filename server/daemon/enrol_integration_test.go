//go:build integration

package daemon

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/internal/testreq"
	"labswarm/server/netboot/bootfile"
)

// TestRealEnrolAgent runs the program of the enrol initramfs beside this
// system, as a PC that nobody knows: it shows a code, is bound by it, says its
// name and seat and ends; then the PC gets a job.
func TestRealEnrolAgent(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "labswarm-enrol")
	build := exec.CommandContext(t.Context(), testreq.Tool(t, "go", "golang"), "build", "-tags", "enrolonly", "-o", bin, "../../initramfs-agent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the enrol agent: %v\n%s", err, out)
	}
	s := newSite(t)
	ctx := t.Context()
	if _, err := s.cli.PutRoom(ctx, api.Room{Name: "A101", Rows: 1, Cols: 2}); err != nil {
		t.Fatal(err)
	}
	s.learn("A101")
	pc := s.newPC(7)
	pins, err := bootfile.PinsJSON([][]byte{s.srv.keys.ServerPublic()}, [][]byte{s.srv.keys.ImagePublic()})
	if err != nil {
		t.Fatal(err)
	}
	evidence, err := json.Marshal(pc.ev)
	if err != nil {
		t.Fatal(err)
	}
	pinsFile, evFile := filepath.Join(s.dir, "pins.json"), filepath.Join(s.dir, "evidence.json")
	for file, raw := range map[string][]byte{pinsFile: pins, evFile: evidence} {
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, bin, "--server", s.srv.agents.Addr().String(), "--pins", pinsFile, "--evidence", evFile)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`ENROL CODE (\d{6}) \| MAC (\S+) \| serial SYS-new7`)
	var text strings.Builder
	bound := false
	for sc := bufio.NewScanner(out); sc.Scan(); {
		text.WriteString(sc.Text() + "\n")
		if m := shown.FindStringSubmatch(sc.Text()); m != nil && !bound {
			bound = true
			h, err := s.cli.Bind(ctx, api.EnrolBind{Code: m[1], Room: "A101", Seat: "02"})
			if err != nil || h.Name != "A101-02" || h.MAC != m[2] || h.MAC != pc.host.MAC {
				t.Errorf("bind by the code shown: %+v, %v", h, err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !bound {
		t.Fatalf("the enrol agent: %v, bound %v\n%s", err, bound, text.String())
	}
	if !strings.Contains(text.String(), "This PC is A101-02 now, on seat 02 of room A101.") {
		t.Errorf("it did not say who it is:\n%s", text.String())
	}
	if _, err := s.cli.CreateJob(ctx, api.JobCreate{Image: s.image, Room: "A101", Confirm: "A101"}); err != nil {
		t.Fatal(err)
	}
	// Its normal agent, with the disk that the enrol profile could not see.
	h, err := s.cli.Host(ctx, "A101-02")
	if err != nil {
		t.Fatal(err)
	}
	pc.host = h
	if rep := pc.enrol(); rep.Status != api.EnrolOK {
		t.Fatalf("the bound PC gets no job: %+v", rep)
	}
	pc.order()
}
