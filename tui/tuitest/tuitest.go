// Package tuitest holds what the console's tests share: rooms of any size with
// hosts in every state, and golden files. Only tests import it.
package tuitest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/snapshot"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Now is the time of all tests.
func Now() time.Time { return time.Date(2026, 11, 20, 2, 11, 7, 0, time.UTC) }

// Sizes are the terminals every screen is drawn on.
func Sizes() []component.Size {
	return []component.Size{{W: 80, H: 24}, {W: 40, H: 12}, {W: 120, H: 40}}
}

// Facts returns rooms with n hosts in all, in mixed states.
func Facts(n int) snapshot.Facts {
	f := snapshot.Facts{Server: api.ServerInfo{Name: "lab1", Version: "0.2.0", Ready: true}}
	if n == 0 {
		return f
	}
	j := api.Job{
		ID: 118, Image: "deb12-lab", Version: "14", Room: "A101", Created: Now().Add(-11 * time.Minute), CellBytes: 1 << 20, Cells: 360,
		BytesShipped: 360 << 20, SeedSent: 389 << 20, EtaS: 187, Percent: 61.4, RateBps: 412 << 20,
	}
	for i := range n {
		h := api.Host{Name: fmt.Sprintf("a%02d", i+1), Room: "A101", MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255), LastSeen: Now().Add(-9 * time.Minute)}
		f.Hosts = append(f.Hosts, h)
		if i%19 != 18 {
			j.Slots = append(j.Slots, Slot(i, h))
		}
	}
	f.Rooms = []api.Room{{Name: "A101"}}
	f.Jobs = []api.Job{j}
	if n >= 40 {
		f.Rooms = append(f.Rooms, api.Room{Name: "B001"}, api.Room{Name: "A102"})
		for i := range 8 {
			f.Hosts = append(f.Hosts, api.Host{Name: fmt.Sprintf("b%d", i+1), Room: "A102", MAC: fmt.Sprintf("52:54:00:01:00:%02x", i)})
		}
	}
	return f
}

// states is the mix of a room in the middle of a night.
var states = []api.State{
	api.StateWriting, api.StateConfirmed, api.StateVerifying, api.StateWriting, api.StateFailed, api.StateDone, api.StateWriting,
	api.StateRebooting, api.StateBooting, api.StateWriting, api.StateChecking, api.StateNoShow, api.StateFinalising, api.StateHeld,
	api.StateEnrolled, api.StateSkipped, api.StateArmed, api.StatePending, api.StateCancelled, api.StateWaking,
}

// Slot returns the slot of host number i.
func Slot(i int, h api.Host) api.Slot {
	s := api.Slot{
		Host: h.Name, MAC: h.MAC, State: states[i%len(states)], Since: Now().Add(-time.Duration(40+i) * time.Second), Attempt: 1,
		Disk: &api.Disk{Model: "SAMSUNG 870", Serial: fmt.Sprintf("S5Y1NX%02d", i), Bytes: 250059350016}, Firmware: "secureboot",
		LastIP: fmt.Sprintf("10.8.%d.%d", i>>8, i&255), CellsWritten: 3 * i, BytesFromSeed: int64(i) << 20, BytesFromPeers: int64(2*i) << 20,
	}
	switch s.State {
	case api.StateWriting:
		s.Percent, s.RateBps, s.PONR = float64(i*7%101), int64(60+i%50)<<20, true
		s.Parent, s.Fallbacks = "a09", []string{"a05", "a17"}
		if i%9 == 6 {
			s.SilentS = 40
		}
	case api.StateVerifying:
		s.Percent, s.RateBps, s.PONR = 37, 210<<20, true
	case api.StateFailed:
		s.Code, s.Error, s.PONR, s.Attempt = api.CodeDiskWrite, "write cell 18743 at 18.3 GiB of SAMSUNG 870 S5Y1NX04: input/output error", true, 2
	case api.StateHeld:
		s.Code, s.Error = api.CodeAmbiguous, "two disks fit this image: choose one with `labswarm host add --disk SERIAL`"
	case api.StateDone, api.StateRebooting, api.StateConfirmed:
		s.Percent, s.Verified, s.PONR = 100, true, true
	case api.StateChecking:
		s.Percent, s.Detail = 12, "reading its own disk, 31 MiB/s"
	}
	return s
}

// Picture returns a live picture of n hosts.
func Picture(n int) *snapshot.Snapshot {
	s := snapshot.Build(Facts(n))
	s.Link, s.Full, s.Heard = snapshot.Live, true, Now().Add(-300*time.Millisecond)
	return s
}

// Night returns the picture of 40 hosts in the middle of a night, with what
// came before: ended jobs, the event log, the rate over time.
func Night() *snapshot.Snapshot {
	f := Facts(40)
	ended := func(id uint64, result string, states ...api.State) api.Job {
		j := f.Jobs[0]
		j.ID, j.Created, j.Ended, j.Result, j.EtaS, j.Percent = id, Now().Add(-25*time.Hour), Now().Add(-24*time.Hour-40*time.Minute), result, -1, 100
		j.Room, j.Slots = "A102", nil
		for i, st := range states {
			j.Slots = append(j.Slots, api.Slot{Host: fmt.Sprintf("b%d", i+1), State: st, Percent: 100, Verified: st.Good(), CellsKept: 340, CellsWritten: 20})
		}
		return j
	}
	f.Jobs = append(f.Jobs, ended(117, "ok", api.StateConfirmed, api.StateConfirmed), ended(116, "partial", api.StateConfirmed, api.StateNoShow, api.StateFailed))
	s := snapshot.Build(f)
	s.Link, s.Full, s.Heard = snapshot.Live, true, Now().Add(-300*time.Millisecond)
	s.Log = Log()
	r := snapshot.Rates{Begin: Now().Add(-10 * time.Minute), Every: time.Second}
	for i := range 600 {
		r.Bps = append(r.Bps, float64(min(i, 200))*2.2*(1<<20))
	}
	s.Rates = map[uint64]snapshot.Rates{118: r}
	return s
}

// Log is the event log of that night.
func Log() []api.Event {
	at := func(m int) time.Time { return Now().Add(time.Duration(m) * time.Minute) }
	return []api.Event{
		{Seq: 1, Time: at(-12), Level: "warn", Code: "dhcp_foreign", Text: "a foreign DHCP server, 10.8.1.250, offers a boot file: unplug it, or let the switch keep it out"},
		{Seq: 2, Time: at(-11), Level: "info", Code: "job_created", Job: 118, Room: "A101", Text: "job 118: deb12-lab/14 for 38 hosts of A101"},
		{Seq: 3, Time: at(-5), Level: "error", Code: "slot_failed", Job: 118, Room: "A101", Host: "a05", Text: "write cell 18743 at 18.3 GiB of SAMSUNG 870 S5Y1NX04: input/output error"},
		{Seq: 4, Time: at(-2), Level: "info", Code: "slot_confirmed", Job: 118, Room: "A101", Host: "a02", Text: "new system seen"},
	}
}

// Golden compares text with testdata/name; -update writes it.
func Golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	text += "\n"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read the golden file (go test -update writes it): %v", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("%s differs (-golden +drawn):\n%s", path, diff)
	}
}

// Fits fails the test when a frame is not exactly as large as the screen, or
// a line is wider.
func Fits(t *testing.T, frame string, size component.Size) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) != size.H {
		t.Errorf("frame for %v has %d lines", size, len(lines))
	}
	for i, l := range lines {
		if w := component.Width(Plain(l)); w > size.W {
			t.Errorf("line %d is %d columns wide on a screen of %d: %q", i, w, size.W, l)
		}
	}
}

// Plain removes the sequences for colour and weight.
func Plain(s string) string {
	var b strings.Builder
	for {
		at := strings.Index(s, "\x1b[")
		if at < 0 {
			return b.String() + s
		}
		b.WriteString(s[:at])
		end := strings.IndexByte(s[at:], 'm')
		if end < 0 {
			return b.String() + s[at:]
		}
		s = s[at+end+1:]
	}
}
