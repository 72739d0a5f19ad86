package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
	"labswarm/server/decide"
)

var raid = api.Mark{Kind: "mdraid", Off: 1 << 20, At: 1<<20 + 4096, Where: "vda1"}

// TestForeignDataNeedsAWord: a disk in a RAID is refused, shown in the plan, and
// written only by a job that names RAIDs; the order then names what was found.
func TestForeignDataNeedsAWord(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	s.boot(h, decide.Agent)
	a := newAgent(s, h)
	a.ev.Disks[0].Foreign = []api.Mark{raid}
	if rep := a.enrol(); rep.Status != api.EnrolGoLocal || !strings.Contains(rep.Reason, "--replace-foreign mdraid") {
		t.Errorf("enrol = %+v; want go_local and what can be done", rep)
	}
	if sl := s.wantState("a1", api.StateFailed); sl.Code != api.CodeDiskForeign || !strings.Contains(sl.Error, "mdraid (vda1)") || !strings.Contains(sl.Error, "DISK-a1") || sl.PONR {
		t.Errorf("slot: %s %q ponr=%v; want %s, what was found and where", sl.Code, sl.Error, sl.PONR, api.CodeDiskForeign)
	}
	req := api.JobCreate{Image: s.image, Room: "r1", Confirm: "r1"}
	for kinds, want := range map[string]string{"": "refused", "luks": "refused", "mdraid": "REPLACES mdraid (vda1)"} {
		req.ReplaceForeign = nil
		if kinds != "" {
			req.ReplaceForeign = []string{kinds}
		}
		plan, err := s.cli.PlanJob(t.Context(), req)
		if err != nil || len(plan.Hosts) != 1 || !strings.Contains(plan.Hosts[0].Reason+plan.Hosts[0].Disk, want) {
			t.Errorf("plan with %q given up: %+v, %v; want %q", kinds, plan, err, want)
		}
	}
	req.ReplaceForeign = []string{"luks", "mdraid"}
	if _, err := s.cli.CreateJob(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	s.boot(h, decide.Agent)
	a = newAgent(s, h)
	a.ev.Disks[0].Foreign = []api.Mark{raid}
	if rep := a.enrol(); rep.Status != api.EnrolOK {
		t.Fatalf("enrol = %+v", rep)
	}
	a.order()
	if d := cmp.Diff([]api.Mark{raid}, a.o.Replace); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

// TestResumeIsNotRefusedByItsOwnHalf: after the point of no return nothing on the
// disk is foreign any more, whatever half of it looks like.
func TestResumeIsNotRefusedByItsOwnHalf(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	s.deploy(h)
	s.quiet = time.Nanosecond
	s.restart()
	s.boot(h, decide.Agent)
	a := newAgent(s, h)
	a.ev.Disks[0].Foreign = []api.Mark{raid}
	if rep := a.enrol(); rep.Status != api.EnrolOK {
		t.Fatalf("enrol = %+v; want the order to go on", rep)
	}
	a.order()
	if len(a.o.Replace) != 1 {
		t.Errorf("the order gives up %v; want what was found", a.o.Replace)
	}
}

// TestDiskRulesOfHostAndJob: both must allow the disk; what cannot be understood is
// refused when it is typed.
func TestDiskRulesOfHostAndJob(t *testing.T) {
	disks := []api.Disk{{Name: "sda", Serial: "A", Model: "Samsung SSD", Bytes: 8 << 20, Sector: 512, Bus: "sata"}, {Name: "nvme0n1", Serial: "B", Model: "WD Black", Bytes: 8 << 20, Sector: 512, Bus: "nvme"}}
	for _, tc := range []struct {
		host, job string
		want      string // serial
		code      string
	}{
		{"", "", "", api.CodeAmbiguous}, {"b", "", "B", ""}, {"", "bus=nvme", "B", ""}, {"model=samsung*", "size=..1G", "A", ""}, {"A", "bus=nvme", "", api.CodeDiskNotFound},
	} {
		s := newSite(t)
		h := s.host("a1")
		h.Disk = tc.host
		if _, err := s.cli.PutHost(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if _, err := s.cli.CreateJob(t.Context(), api.JobCreate{Image: s.image, Room: "r1", Confirm: "r1", Disk: tc.job}); err != nil {
			t.Fatal(err)
		}
		s.boot(h, decide.Agent)
		a := newAgent(s, h)
		a.ev.Disks = disks
		a.enrol()
		sl := s.slot("a1")
		if sl.Code != tc.code || tc.code == "" && (sl.Disk == nil || sl.Disk.Serial != tc.want) {
			t.Errorf("host %q, job %q: code %q, disk %+v; want %q, disk %q", tc.host, tc.job, sl.Code, sl.Disk, tc.code, tc.want)
		}
	}
	s := newSite(t)
	h := s.host("a1")
	h.Disk = "bus=usb"
	var p *api.Problem
	if _, err := s.cli.PutHost(t.Context(), h); !errors.As(err, &p) || p.Code != api.CodeUsage || !strings.Contains(p.Detail, "never written") {
		t.Errorf("host with a USB rule: %v", err)
	}
	for _, req := range []api.JobCreate{{Disk: "size=1"}, {ReplaceForeign: []string{"all"}}, {ReplaceForeign: []string{api.MarkUnreadable}}} {
		req.Image, req.Room, req.Confirm = s.image, "r1", "r1"
		if _, err := s.cli.CreateJob(t.Context(), req); !errors.As(err, &p) || p.Code != api.CodeUsage {
			t.Errorf("job %+v: %v; want it refused", req, err)
		}
		if _, err := s.cli.PlanJob(t.Context(), req); !errors.As(err, &p) || p.Code != api.CodeUsage {
			t.Errorf("plan %+v: %v; want it refused", req, err)
		}
	}
}
