package app

import (
	"os"
	"strings"
	"testing"

	"labswarm/tui/snapshot"
)

// TestRelays: from the job to the chains and back to the host that was looked at.
func TestRelays(t *testing.T) {
	c := walker(t)
	c.press("2", "enter", "v")
	c.shows("Relays of job 118", "a09 > ", "fed by nobody now:")
	c.press("g")
	c.shows("from a09, else a05 a17")
	c.press("l", "enter")
	c.shows("A101/a04", "from a09")
	c.press("esc")
	c.shows(">a04")
	c.press("esc")
	c.shows("Job 118", ">a04 ")
	c.press(":")
	c.typeText("relay 118")
	c.press("enter")
	c.shows("Relays of job 118")
	c.press(":")
	c.typeText("host a09")
	c.press("enter")
	c.shows("feeds a01 a04")
}

// TestReport: verdict first; save writes a new file; n begins a job for the
// hosts that did not get the image.
func TestReport(t *testing.T) {
	t.Chdir(t.TempDir())
	c := walker(t)
	c.press("2", "enter", "R")
	c.shows("Report of job 118", "PARTIAL  33 of 38", "NOT USABLE  2", "a13", "USABLE, OLD IMAGE  2", "NOT IN THE JOB  2", "a39 a40")
	c.press("G")
	c.shows("a38      121 cells kept, 32033 fetched; 1.2 GiB server, 30.2 GiB PCs; booted")
	c.press("pgup")
	c.shows("HOST BY HOST")
	c.press("o")
	c.shows("Save the report of job 118 as", "html")
	c.press("x")
	c.shows("nothing was saved", "Report of job 118")
	c.press("o", "c")
	c.shows("saved: report-118-")
	files, err := os.ReadDir(".")
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if raw, err := os.ReadFile(files[0].Name()); err != nil || string(raw) != "report of job 118 as csv\n" || !strings.HasSuffix(files[0].Name(), ".csv") {
		t.Errorf("%s holds %q, %v", files[0].Name(), raw, err)
	}
	c.press("n")
	c.shows("New job   step 1 of 4", "for 4 marked hosts")
	c.press("enter", "enter")
	c.shows("WILL ERASE the whole disk of 4 hosts", ">a07")
}

// TestReportsList: also of jobs that the server does not list any more.
func TestReportsList(t *testing.T) {
	c := walker(t)
	c.press("2", "R")
	c.shows("Reports   2 kept", "117", "PARTIAL")
	c.press("/")
	c.typeText("result=partial")
	c.press("enter", "enter")
	c.shows("Report of job 116")
	c.press(":")
	c.typeText("report 7")
	c.press("enter")
	c.shows("Report of job 7")
	c.press(":")
	c.typeText("report 999")
	c.press("enter")
	c.shows("no report:", "there is no job 999")
}

// TestDoctor: the worst first, each with its cure; r examines again.
func TestDoctor(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("6", "d")
	c.shows("Doctor   2 ok, 1 warnings, 1 failed", "FAIL", "-> labswarm image gc")
	c.press("r")
	if n := srv.Gets("/v1/doctor"); n != 2 {
		t.Errorf("the server was examined %d times, want twice", n)
	}
	c.shows("1 failed")
	c.press("esc")
	c.shows("Log")
}

// TestImageActions: a pin is asked for with y/N, removal wants the name typed,
// and the server's no is shown.
func TestImageActions(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("3", "P")
	c.shows("Pin win11/2026-11?")
	c.press("enter")
	c.shows("nothing was done")
	c.press("P", "y")
	c.shows("win11/2026-11 is pinned", " pin ")
	c.press("P")
	c.shows("Take the pin of win11/2026-11 away?")
	c.press("esc", "D")
	c.shows("REMOVE win11/2026-11", "the newest version of win11", "locked")
	c.typeText("win11")
	c.press("enter")
	c.shows("is not the version's name")
	c.paste("/2026-11")
	if len(srv.Did()) != 1 {
		t.Fatalf("asked for %q before the name was typed", srv.Did())
	}
	c.typeText("/2026-11")
	c.press("enter")
	c.shows("remove win11/2026-11: ", "is needed")
	c.press("j", "D")
	c.typeText("deb12-lab/14")
	c.press("enter")
	c.shows("deb12-lab/14 is removed")
	if did := srv.Did(); len(did) != 3 || !strings.Contains(did[2], `"force":false`) {
		t.Errorf("asked for %q", did)
	}
}

// TestCaptureOfAHost: a name, then y/N; not of a host in a running job.
func TestCaptureOfAHost(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("enter", "c")
	c.shows("c: the host is in a running job")
	c.press("esc", "tab", "enter", "c")
	c.shows("Image of the disk of b1")
	c.press("enter")
	c.shows("type a name for the image first")
	c.typeText("lab")
	c.press("enter")
	c.shows("Make a new version of the image lab from the disk of b1?", "Nothing is written to")
	c.press("y")
	c.shows("job 120 makes the image lab", "A102/b1")
	if did := srv.Did(); len(did) != 1 || !strings.Contains(did[0], `/v1/images/lab/capture {"host":"b1"}`) {
		t.Errorf("asked for %q", did)
	}
}

// TestNoImageActionOnAnOldPicture: nor from a read-only console.
func TestNoImageActionOnAnOldPicture(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("3")
	c.readOnly = true
	for _, k := range []string{"P", "D"} {
		c.press(k)
		c.shows(k + ": this console is read-only")
	}
	c.readOnly = false
	old := *c.s
	old.Link, old.Heard = snapshot.Lost, old.Heard.Add(-60e9)
	c.press("P")
	c.Update(pictureMsg{&old})
	c.press("y")
	c.shows("not while the picture is old")
	if len(srv.Did()) != 0 {
		t.Errorf("asked for %q", srv.Did())
	}
}
