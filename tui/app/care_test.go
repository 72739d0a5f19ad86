package app

import (
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/tui/snapshot"
	"labswarm/tui/tuitest"
)

// asked checks what the server was asked to change, and forgets it.
func asked(t *testing.T, srv *tuitest.Server, want ...string) {
	t.Helper()
	var got []string
	for _, a := range srv.Asked {
		got = append(got, strings.TrimSpace(a.What+" "+a.Body))
	}
	srv.Asked = nil
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

// seated is the picture of a room with a map, learn mode open, two questions.
func seated(t *testing.T, c *console, learn bool) {
	t.Helper()
	f := tuitest.Seated(tuitest.Facts(40), 5, 9, tuitest.Numbered)
	f.Server.Questions = 2
	if learn {
		f.Server.Learn = &api.Learn{Room: "A101", Until: time.Now().Add(30 * time.Minute)}
	}
	s := snapshot.Build(f)
	s.Link, s.Full, s.Heard = snapshot.Live, true, time.Now()
	_, cmd := c.Update(pictureMsg{s})
	c.run(cmd)
}

func TestSeatMapWalk(t *testing.T) {
	c := walker(t)
	seated(t, c, false)
	c.shows("[door]", ">a01 00<", "08   .", "without a seat:", "a01  seat 01", "2 questions: press u")
	c.press("j", "l", "l", "l", "l")
	c.shows(">a12 ns<") // across the aisle
	c.press("k")
	c.shows(">a05 !!<")
	c.press("z")
	c.shows(">!!", " 1  00 up vf 21")
	c.press("z", "enter")
	c.shows("A101/a05")
	c.press("esc")
	c.shows(">a05 !!<")
}

func TestWake(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("space", "l", "l", "space", "w")
	c.shows("Switch on 2 hosts?", "a01 a03")
	c.press("n")
	asked(t, srv)
	c.press("w", "y")
	c.shows("packets go out to 2 hosts, the last in 15")
	asked(t, srv, `POST /v1/wake {"hosts":["a01","a03"]}`)
	c.press("enter", "w", "y")
	c.shows("packets go out to a03")
	asked(t, srv, `POST /v1/wake {"hosts":["a03"]}`)
	c.press("2", "enter", "w")
	c.shows("Switch on a05?")
	c.press("y")
	asked(t, srv, `POST /v1/wake {"hosts":["a05"]}`)
	c.readOnly = true
	c.press("w")
	c.shows("w: this console is read-only")
}

func TestSchedules(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("4")
	c.shows("Schedules   5   times of Europe/Rome", ">nightly-A101", "Mon-Fri 02:00-06:00", "win11/latest", "Thu 25 Mar 02:00", "job 118", "MISSED")
	c.press("enter")
	c.shows("past  Thu 19 Nov  started job 118, running, ", "past  Wed 18 Nov  skipped: calendar holidays", "clocks change: UTC+1 h -> UTC+2 h")
	c.press("enter", "space")
	c.shows("Pause schedule nightly-A101?")
	c.press("y")
	c.shows("schedule nightly-A101 is paused")
	asked(t, srv, `POST /v1/schedules/nightly-A101/pause {}`)
	c.press("j", "j", "space", "y")
	c.shows("schedule paused runs again")
	asked(t, srv, `POST /v1/schedules/paused/resume {}`)
	c.press("D", "enter")
	c.shows("nothing was done")
	c.press("D", "y")
	asked(t, srv, `DELETE /v1/schedules/paused`)
}

// TestRunScheduleNow erases disks: only the typed name makes the job.
func TestRunScheduleNow(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press(":")
	c.typeText("schedules")
	c.press("enter", "R")
	c.shows("ERASE DISKS NOW: win11/latest for A101", "up to 40 hosts", "locked")
	c.press("enter", "y", "enter")
	c.shows("is not the room's name")
	c.press("ctrl+u")
	c.paste("A101")
	c.press("enter")
	asked(t, srv)
	c.typeText("A101")
	c.press("enter")
	asked(t, srv, `POST /v1/schedules/nightly-A101/run {"confirm":"A101"}`)
	c.shows("job 118 is made", "Job 118")
	c.press("esc")
	c.shows("Schedules")
}

func TestQuestions(t *testing.T) {
	c, srv := walkerAndServer(t)
	seated(t, c, true)
	c.shows("LEARN MODE for A101 until ", "2 questions, 2 new PCs show a code: press u")
	c.press("u")
	c.shows("Questions and new PCs   2 and 2", ">new disk", "May it be", "OptiPlex 7010")
	c.press("enter")
	c.shows(">accept", "exclude", "leave the PC out of all jobs")
	c.press("esc")
	c.shows(">new disk")
	c.press("enter", "j", "enter")
	c.shows(`Answer "exclude"?`)
	c.press("enter")
	c.shows("nothing was done", ">exclude")
	asked(t, srv)
	c.press("enter", "y")
	c.shows("question 7 is answered: exclude")
	asked(t, srv, `POST /v1/questions/7 {"answer":"exclude"}`)
}

func TestBindANewPC(t *testing.T) {
	c, srv := walkerAndServer(t)
	seated(t, c, true)
	c.press("u", "j", "j", "enter")
	c.shows("Give a new PC its seat", "A101", "free: 08 40")
	c.typeText("12345")
	c.press("enter")
	c.shows("code: type the six digits on the PC's screen")
	c.press("ctrl+u")
	c.typeText("123 457")
	c.press("tab", "tab")
	c.typeText("08")
	c.press("enter")
	c.shows("The PC that shows 123457 sits on seat 08 of room A101?")
	c.press("y")
	c.shows("no PC shows the code 123457", "Give a new PC its seat")
	c.press("up", "up", "backspace")
	c.typeText("6")
	c.press("enter", "y")
	c.shows("host a41 sits on seat 08 of room A101", "Questions and new PCs")
	asked(t, srv, `POST /v1/enrolments {"code":"123457","room":"A101","seat":"08"}`, `POST /v1/enrolments {"code":"123456","room":"A101","seat":"08"}`)
	c.press("b", "down", "down")
	c.typeText("05")
	c.press("down")
	c.press("ctrl+u")
	c.typeText("yes")
	c.press("down")
	c.typeText("123456")
	c.press("enter")
	c.shows("It takes the place of a05")
	c.press("esc", "esc", "esc")
	asked(t, srv)
}

func TestLearnMode(t *testing.T) {
	c, srv := walkerAndServer(t)
	c.press("L")
	c.shows("Open learn mode for room A101", "30_")
	c.press("ctrl+u")
	c.typeText("900")
	c.press("enter")
	c.shows(`minutes: "900": use a number from 1 to 240`)
	c.press("ctrl+u")
	c.typeText("45")
	c.press("enter")
	c.shows("for 45 minutes?")
	asked(t, srv)
	c.press("y")
	c.shows("learn mode is open for A101", "[A101 40]")
	asked(t, srv, `POST /v1/learn {"room":"A101","minutes":45,"after":"reboot"}`)
	seated(t, c, true)
	c.press("L")
	c.shows("Close learn mode of room A101?")
	c.press("y")
	c.shows("learn mode is closed")
	asked(t, srv, `DELETE /v1/learn`)
	seated(t, c, false)
	if strings.Contains(c.frame, "LEARN") || strings.Contains(c.frame, "new PC") {
		t.Errorf("learn mode is still shown:\n%s", c.frame)
	}
}
