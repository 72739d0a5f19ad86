package screen_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/screen/doctor"
	"labswarm/tui/screen/hosts"
	"labswarm/tui/screen/images"
	"labswarm/tui/screen/job"
	"labswarm/tui/screen/jobs"
	"labswarm/tui/screen/list"
	"labswarm/tui/screen/logs"
	"labswarm/tui/screen/newjob"
	"labswarm/tui/screen/questions"
	"labswarm/tui/screen/relays"
	"labswarm/tui/screen/report"
	"labswarm/tui/screen/rooms"
	"labswarm/tui/screen/schedules"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
	"labswarm/tui/tuitest"
)

// view is a screen with what was read for it.
type view struct {
	screen.View
	data any
}

// views lists every screen that has no goldens of its own. A new screen is
// added here.
func views() map[string]view {
	return map[string]view{
		"newjob-when": {View: when()}, "newjob-plan": {plan(), tuitest.Plan(api.JobCreate{Image: "win11", Version: "2026-11", Room: "A102"}, tuitest.Facts(40))},
		"newjob-image": {newjob.ForRoom("A101"), tuitest.Images()}, "newjob-room": {View: newjob.OfImage("win11/2026-11")},
		"jobs": {View: jobs.State{}}, "job": {View: job.State{ID: 118}}, "job-ended": {View: job.State{ID: 116}},
		"confirm":       {View: confirm.State{Title: "Cancel job 118, deb12-lab/14?", Facts: []string{"20 hosts have not begun to write: they are released."}}},
		"confirm-erase": {View: confirm.State{Title: "ERASE 37 disks in A101", Want: "A101", What: "the room's name", Facts: []string{"deb12-lab/14 replaces everything on them."}}},
		"hosts":         {View: hosts.State{}}, "log": {View: logs.State{}},
		"schedules": {schedules.State{Open: "nightly-A101"}, schedules.Facts{List: tuitest.Schedules(), Name: "nightly-A101", Runs: tuitest.Runs()}}, "schedules-unread": {View: schedules.State{}},
		"questions": {questions.State{Room: "A101"}, waiting()}, "questions-none": {questions.State{}, questions.Facts{}}, "questions-choice": {choosing(), waiting()},
		"bind": {View: pressed(questions.State{Room: "A101"}, keymap.Bind)}, "learn": {View: pressed(rooms.State{}, keymap.LearnMode)},
		"images": {images.State{Open: true}, imageFacts()}, "images-unread": {View: images.State{}},
		"images-healing": {images.State{State: list.State{Key: "exam/3"}, Open: true}, imageFacts()},
		"report":         {report.State{Job: 118}, tuitest.Summary(118)}, "report-unread": {View: report.State{Job: 118}},
		"reports": {report.List{}, tuitest.Reports()}, "relays-still": {View: relays.State{Job: 116}},
		"doctor": {doctor.State{}, doctor.Found(tuitest.Checkup())}, "doctor-running": {View: doctor.State{}},
	}
}

// waiting is what the screen of questions reads.
func waiting() questions.Facts {
	return questions.Facts{Questions: tuitest.Questions()[:2], Waiting: tuitest.Enrolments()[:2]}
}

// choosing shows the choices of a question.
func choosing() screen.View {
	v, _ := questions.State{}.Press(keymap.Answer, screen.In{S: tuitest.Night(), Size: tuitest.Sizes()[0], Now: tuitest.Now(), Data: waiting()})
	return v
}

// pressed is the view that a key opens.
func pressed(v screen.View, id keymap.ID) screen.View {
	_, e := v.Press(id, screen.In{S: tuitest.Night(), Size: tuitest.Sizes()[0], Now: tuitest.Now()})
	return e.Open
}

// when is a new job at its third step, plan at its fourth.
func when() screen.View {
	st := newjob.OfImage("win11/2026-11")
	in := screen.In{S: tuitest.Night(), Keys: keymap.Default(), Size: tuitest.Sizes()[0], Th: theme.New(false, true), Now: tuitest.Now()}
	v, _ := st.Press(keymap.Down, in)
	v, _ = v.Press(keymap.Open, in)
	return v
}

func plan() screen.View {
	v, _ := when().(screen.Typist).Type("enter", screen.In{S: tuitest.Night(), Now: tuitest.Now()})
	return v
}

func imageFacts() images.Facts {
	digest := strings.Repeat("c0ffee", 10)
	img := func(name, version string, gib int64) api.Image {
		return api.Image{Name: name, Version: version, Created: tuitest.Now().Add(-72 * time.Hour), DiskBytes: 250 << 30, MinBytes: gib << 30, UsedBytes: gib << 30,
			Cells: int(gib) << 10, BytesShipped: gib << 29, Digest: digest, Boot: "uefi", Partitions: []string{"1 vfat EFI 128 MiB", "2 ext4 root 249 GiB, grows"}}
	}
	return images.Facts{Images: []api.Image{img("win11", "2026-11", 31), img("deb12-lab", "14", 9), img("exam", "3", 10)}, States: map[string]api.ImageState{
		"win11/2026-11": {Checked: tuitest.Now().Add(-50 * time.Hour), Refs: []string{"the newest version of win11"}},
		"exam/3": {Quarantine: "cell 17 is bad, and so is its frame", Bad: []int64{17, 4711}, Pinned: true, Checked: tuitest.Now().Add(-time.Hour),
			Outcome: "2 cells of 10240 differ", Healing: "1 cell came from a07; cell 4711: nobody holds it"},
	}}
}

func input(v view, size int, th *theme.Theme) screen.In {
	return screen.In{S: tuitest.Night(), Keys: keymap.Default(), Size: tuitest.Sizes()[size], Th: th, Now: tuitest.Now(), Data: v.data}
}

// TestGolden: every screen, every size, with and without colour and Unicode.
func TestGolden(t *testing.T) {
	for name, v := range views() {
		for i, size := range tuitest.Sizes() {
			for _, ascii := range []bool{true, false} {
				th := theme.New(false, ascii)
				got := v.Render(input(v, i, th))
				tuitest.Fits(t, got, size)
				kind := map[bool]string{true: "ascii", false: "utf8"}[ascii]
				tuitest.Golden(t, fmt.Sprintf("%s-%dx%d-%s.txt", name, size.W, size.H, kind), got)
				if painted := v.Render(input(v, i, theme.New(true, ascii))); tuitest.Plain(painted) != got {
					t.Errorf("%s: colour changes more than colour", name)
				}
			}
		}
	}
}

// TestEveryKeyEverywhere: no key breaks a screen, also without server, data and
// hosts, and when the terminal is tiny.
func TestEveryKeyEverywhere(t *testing.T) {
	for name, v := range views() {
		for _, s := range []*snapshot.Snapshot{tuitest.Night(), tuitest.Picture(0), {}} {
			for size := range tuitest.Sizes() {
				in := input(v, size, theme.New(false, true))
				in.S = s
				at := v.View
				for _, b := range keymap.Default().On(v.Screen()) {
					next, _ := at.Press(b.ID, in)
					if next.Screen() != v.Screen() && !strings.HasPrefix(name, "newjob") {
						t.Fatalf("%s: %s turned it into another screen", name, b.ID)
					}
					at = next
					if w, ok := at.(screen.Typist); ok && w.Typing() {
						for _, k := range []string{"a", "=", "é", "space", "backspace", "enter"} {
							at, _ = at.(screen.Typist).Type(k, in)
						}
					}
					tuitest.Fits(t, at.Render(in), in.Size)
				}
			}
		}
	}
}

// TestQueriesAreCheap: a query's key depends on the picture only.
func TestQueriesAreCheap(t *testing.T) {
	for name, v := range views() {
		s := tuitest.Night()
		if a, b := v.Query(s), v.Query(s); a.Key != b.Key {
			t.Errorf("%s asks for %q, then for %q", name, a.Key, b.Key)
		}
	}
}

// TestFailedReadingIsSaid: a screen whose reading failed says so.
func TestFailedReadingIsSaid(t *testing.T) {
	for name, v := range views() {
		if v.Query(tuitest.Night()).Key == "" {
			continue
		}
		in := input(v, 0, theme.New(false, true))
		in.Data, in.Cause = nil, errors.Join(context.DeadlineExceeded).Error()
		if got := v.Render(in); !strings.Contains(got, "deadline exceeded") {
			t.Errorf("%s says nothing:\n%s", name, got)
		}
	}
}
