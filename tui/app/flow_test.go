package app

import (
	"os"
	"strings"
	"testing"
	"time"

	"labswarm/tui/snapshot"
)

// TestNewJob: room, image, when, plan, the wrong name, the right one.
func TestNewJob(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("tab", "n")
	c.shows("New job   step 1 of 4: image", "for A102", ">win11/2026-11")
	c.press("j", "enter")
	c.shows("step 3 of 4: when", "image deb12-lab/14   for A102", "begins", "now_")
	c.press("ctrl+u")
	c.typeText("yesterday")
	c.press("enter")
	c.shows(`begins: "yesterday": use a time`, "step 3 of 4")
	c.press("ctrl+u", "tab", "ctrl+u")
	c.typeText("4h")
	c.press("enter")
	c.shows("dry run, nothing sent", "WILL ERASE the whole disk of 8 hosts", "8 of 8 hosts fit", ">b1", "RISK: a user is logged in")
	c.press("enter")
	c.shows("ERASE 8 DISKS: deb12-lab/14 for A102", "SAMSUNG 870 233 GiB (8)", "RISK  b2: a user is logged in", "Type the room's name, A102", "locked")
	c.press("enter", "y", "enter", "space", "enter")
	c.shows("is not the room's name; nothing was done")
	c.press("ctrl+u")
	c.paste("A102")
	c.shows("locked")
	c.typeText("A102")
	c.shows("enter goes on")
	if len(srv.Created) != 0 {
		t.Fatalf("jobs were asked for before the name was typed: %+v", srv.Created)
	}
	c.press("enter")
	if len(srv.Created) != 1 || srv.Created[0].Confirm != "A102" || srv.Created[0].PlanDigest != "d1" || srv.Created[0].ConfirmHosts != 8 || srv.Created[0].NotAfter.IsZero() {
		t.Fatalf("asked for %+v", srv.Created)
	}
	c.shows("job 119 is made")
	c.press("esc")
	c.shows("[A102 8]")
}

// TestStalePlan: what changed is said, and the plan is made anew.
func TestStalePlan(t *testing.T) {
	c, srv := walkerAndServer(t)
	srv.Stale = true
	c.press("tab", "n", "enter", "enter", "enter")
	c.typeText("A102")
	c.press("enter")
	c.shows("the plan is not true any more: b3 has gone", "dry run, nothing sent")
	if n := srv.Gets("/v1/plans"); n != 2 {
		t.Errorf("the plan was asked for %d times, want once more", n)
	}
}

// TestMarkedHosts: a job for some hosts is confirmed by the image's name.
func TestMarkedHosts(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("tab", "space", "l", "l", "space")
	c.shows("*b1", "#b3")
	c.press("n", "enter", "enter")
	c.shows("for 2 marked hosts", "whole disk of 2 hosts")
	c.press("enter")
	c.typeText("A102")
	c.press("enter")
	c.shows("is not the image's name")
	c.press("ctrl+u")
	c.typeText("win11")
	c.press("enter")
	if len(srv.Created) != 1 || strings.Join(srv.Created[0].Hosts, " ") != "b1 b3" {
		t.Errorf("asked for %+v", srv.Created)
	}
}

// TestBackThroughTheSteps: esc goes one step back, and out at the end; what was
// chosen stays.
func TestBackThroughTheSteps(t *testing.T) {
	c := walker(t)
	c.press("3", "n")
	c.shows("step 2 of 4: room", "image win11/2026-11", ">A101")
	c.press("j", "enter")
	c.shows("step 3 of 4: when", "for A102")
	c.press("esc")
	c.shows("step 2 of 4: room")
	c.press("enter", "enter")
	c.shows("dry run")
	c.press("esc", "esc", "esc")
	c.shows("no job was made", "Images")
}

// TestSavePlan writes a file that the command line takes.
func TestSavePlan(t *testing.T) {
	t.Chdir(t.TempDir())
	c, _ := walkerAndServer(t)
	c.press("tab", "n", "enter", "enter", "o")
	c.shows("saved: labswarm job create --plan plan-A102-")
	files, err := os.ReadDir(".")
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	raw, err := os.ReadFile(files[0].Name())
	if err != nil || !strings.Contains(string(raw), `"plan_digest": "d1"`) {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestCancelJob(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("2", "enter", "C")
	c.shows("Cancel job 118", "past the point of no return: they finish")
	c.press("enter")
	c.shows("nothing was done")
	if srv.Gets("/v1/jobs/118/cancel") != 0 {
		t.Fatal("enter cancels")
	}
	c.press("C", "y")
	c.shows("job 118 is cancelled")
	if srv.Gets("/v1/jobs/118/cancel") != 1 {
		t.Error("not cancelled")
	}
}

// TestNoActionOnAnOldPicture: nor from a read-only console.
func TestNoActionOnAnOldPicture(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("2", "enter", "C")
	old := *c.s
	old.Link, old.Heard = snapshot.Lost, time.Now().Add(-time.Minute)
	c.Update(pictureMsg{&old})
	c.press("y")
	c.shows("not while the picture is old")
	c.press("C")
	c.shows("C: not while the picture is old")
	fresh := *c.s
	fresh.Link, fresh.Heard = snapshot.Live, time.Now()
	c.readOnly = true
	c.Update(pictureMsg{&fresh})
	c.press("C")
	c.shows("this console is read-only")
	if srv.Gets("/v1/jobs/118/cancel") != 0 {
		t.Error("cancelled all the same")
	}
}
