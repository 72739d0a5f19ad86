package daemon

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"labswarm/api"
)

// TestCodeReadFromAScreen: what a person reads out finds the failure, also after
// the next attempt has begun and after a restart of the server.
func TestCodeReadFromAScreen(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	if _, err := s.cli.PutRoom(t.Context(), api.Room{Name: h.Room, Language: "xx"}); err == nil {
		t.Error("a room speaks xx")
	}
	if _, err := s.cli.PutRoom(t.Context(), api.Room{Name: h.Room, Language: "de"}); err != nil {
		t.Fatal(err)
	}
	job := s.createJob()
	a, cleared := s.deploy(h)
	if rep := a.enrol(); rep.Language != "de" {
		t.Errorf("enrolment speaks %q; want the room's language", rep.Language)
	}
	const text = "write vda at byte 19649265664 (sector 38377472): input/output error"
	if status, raw := a.call("POST", api.RouteLog, api.LogRequest{BootID: a.boot, Text: "last words"}); status != http.StatusNoContent {
		t.Errorf("log = %d %s", status, raw)
	}
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, api.Result{BootID: a.boot, OrderID: a.o.ID, Fence: cleared.Fence(), Code: api.CodeDiskWrite, Error: text, ReadOut: "DW-4K7P",
		Fault: &api.DiskFault{Op: "write", Off: 19649265664, Sector: 38377472, Errno: "EIO"}}, &ack)
	if sl := s.wantState("a1", api.StateFailed); sl.ReadOut != "DW-4K7P" {
		t.Errorf("slot shows the code %q", sl.ReadOut)
	}
	s.restart()
	for _, typed := range []string{"DW-4K7P", "dw4k7p", " dw 4k7p "} {
		r, err := s.cli.Code(t.Context(), typed)
		if err != nil {
			t.Errorf("code %q: %v", typed, err)
			continue
		}
		log, err := os.ReadFile(r.Log)
		if r.Host != "a1" || r.Job != job.ID || r.Time.IsZero() || r.Error != text || !r.PONR || r.Fault == nil || r.Fault.Errno != "EIO" || r.Fault.Sector != 38377472 ||
			err != nil || string(log) != "last words" {
			t.Errorf("code %q: %+v, log %q %v", typed, r, log, err)
		}
	}
	for typed, want := range map[string]string{"DW-9999": "no PC has reported the code DW-9999", "DW-0000": "is no code", "DW": "did not reach the server", "a/b": "is no code"} {
		if _, err := s.cli.Code(t.Context(), typed); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("code %q: %v; want %q", typed, err, want)
		}
	}
}

// TestForgedCode: a code of another class than the failure's is not kept.
func TestForgedCode(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, api.Result{BootID: a.boot, OrderID: a.o.ID, Fence: cleared.Fence(), Code: api.CodeDiskWrite, Error: "no", ReadOut: "TR-4K7P"}, &ack)
	if sl := s.wantState("a1", api.StateFailed); sl.ReadOut != "" {
		t.Errorf("slot shows the code %q", sl.ReadOut)
	}
	if _, err := s.cli.Code(t.Context(), "TR-4K7P"); err == nil {
		t.Error("a forged code is found")
	}
}
