package cli

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"labswarm/api"
)

// CreateCapture orders a capture of the desk's first job, which the test made.
func (d *desk) CreateCapture(_ context.Context, image string, r *api.CaptureCreate, _ string) (j api.Job, err error) {
	if r.Host == "busy" {
		return j, &api.Problem{Status: 409, Code: api.CodeHostBusy, Detail: "hosts are in a job that has not ended: busy"}
	}
	d.set(func() { d.captured, j = append(d.captured, *r), d.jobs[0] })
	return j, nil
}

func capturing(st api.State, version, text string) api.Job {
	return api.Job{ID: 5, Kind: api.KindCapture, Image: "deb", Version: version, Cells: 7, CellBytes: 1 << 20, BytesShipped: 7 << 20,
		Slots: []api.Slot{{Host: "pc1", State: st, Percent: 40, RateBps: 80 << 20, Error: text}}}
}

func TestCaptureWaitsForTheImage(t *testing.T) {
	for _, tt := range []struct {
		name, out, err string
		end            api.Job
		code           int
	}{
		{"published", "deb/2026-11-21.1: 7 cells of 1.00 MiB to ship (7.00 MiB)\n", "capture: ", capturing(api.StateDone, "2026-11-21.1", ""), ExitOK},
		{"refused", "", "partition 2 (ntfs): asleep; no image was made, the host's disk was not changed", capturing(api.StateFailed, "", "partition 2 (ntfs): asleep"), ExitFailed},
		{"cancelled", "", "cancelled by the admin; no image was made", capturing(api.StateCancelled, "", "cancelled by the admin"), ExitFailed},
		{"no show", "", "no_show; no image was made", capturing(api.StateNoShow, "", ""), ExitFailed},
	} {
		d, dir := open(t, capturing(api.StateCapturing, "", ""))
		go func() {
			<-d.ticked
			d.set(func() { d.jobs = []api.Job{tt.end} })
		}()
		code, out, errOut := run(t.Context(), t, dir, "image", "capture", "deb", "--host", "pc1", "--force", "dirty", "--force=hibernated")
		if code != tt.code || out != tt.out || !strings.Contains(errOut, tt.err) || !strings.Contains(errOut, "boot it from the network") {
			t.Errorf("%s: exit code %d, output %q, stderr %q; want %d, %q, %q", tt.name, code, out, errOut, tt.code, tt.out, tt.err)
		}
		if len(d.captured) != 1 || !slices.Equal(d.captured[0].Force, []string{"dirty", "hibernated"}) {
			t.Errorf("%s: asked of the server: %+v", tt.name, d.captured)
		}
	}
}

func TestCaptureJSONAndDetach(t *testing.T) {
	d, dir := open(t, capturing(api.StateArmed, "", ""))
	code, out, _ := run(t.Context(), t, dir, "--json", "image", "capture", "deb", "--host", "pc1", "--detach")
	var j api.Job
	if err := json.Unmarshal([]byte(out), &j); err != nil || code != ExitOK || j.ID != 5 {
		t.Errorf("--detach: exit code %d, %v, %q", code, err, out)
	}
	d.set(func() { d.jobs = []api.Job{capturing(api.StateFailed, "", "x")} })
	code, out, _ = run(t.Context(), t, dir, "--json", "image", "capture", "deb", "--host", "pc1")
	if err := json.Unmarshal([]byte(out), &j); err != nil || code != ExitFailed || j.Slots[0].State != api.StateFailed {
		t.Errorf("failed: exit code %d, %v, %q", code, err, out)
	}
}

// TestCaptureInterrupted: Ctrl-C cancels the capture at the server and tells what became of it; never is a host left armed
// without a word.
func TestCaptureInterrupted(t *testing.T) {
	const image = "deb/2026-11-21.1"
	for _, tt := range []struct {
		name      string
		end       api.Job
		fails     error
		code      int
		out, says string
	}{
		{"cancelled", capturing(api.StateCancelled, "", ""), nil, ExitInterrupted, "", "capture job 5 is cancelled, host pc1 is not armed any more"},
		{"not at once", capturing(api.StateCapturing, "", ""), nil, ExitInterrupted, "", "is being cancelled, host pc1 is CAPTURING"},
		{"too late", capturing(api.StateDone, "2026-11-21.1", ""), nil, ExitOK, image, ""},
		{"refused", capturing(api.StateCapturing, "", ""), &api.Problem{Status: 500, Detail: "store is full"}, ExitInterrupted, "", "host pc1 may still be read when it boots; `labswarm job cancel 5`"},
	} {
		d, dir := open(t, capturing(api.StateArmed, "", ""))
		asked := 0
		d.cancelled = func() error {
			d.set(func() { asked++; d.jobs = []api.Job{tt.end} })
			return tt.fails
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-d.ticked; cancel() }()
		code, out, errOut := run(ctx, t, dir, "image", "capture", "deb", "--host", "pc1")
		if code != tt.code || !strings.HasPrefix(out, tt.out) || !strings.Contains(errOut, tt.says) || strings.Contains(errOut, "goes on") || asked != 1 {
			t.Errorf("%s: exit code %d, cancelled %d times, output %q, stderr %q; want %d, %q, %q", tt.name, code, asked, out, errOut, tt.code, tt.out, tt.says)
		}
	}
}

func TestCaptureRefusals(t *testing.T) {
	d, dir := open(t, capturing(api.StateArmed, "", ""))
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"deb"}, ExitUsage},
		{[]string{"Deb", "--host", "pc1"}, ExitUsage},
		{[]string{"deb", "--host", "pc1", "--force", "bitlocker"}, ExitUsage},
		{[]string{"deb", "--host", "pc1", "--force", "dirty,hibernated"}, ExitUsage},
		{[]string{"deb", "--host", "pc1", "--cell", "x"}, ExitUsage},
		{[]string{"deb", "--host", "busy"}, ExitConflict},
	} {
		if code, _, errOut := run(t.Context(), t, dir, append([]string{"image", "capture"}, tt.args...)...); code != tt.code {
			t.Errorf("%v: exit code %d, %s; want %d", tt.args, code, errOut, tt.code)
		}
	}
	if len(d.captured) != 0 {
		t.Errorf("asked of the server: %+v", d.captured)
	}
}
