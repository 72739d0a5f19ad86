package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/httpapi"
)

// desk is a server without hosts of its own: the real admin routes in front of
// a job that the test moves.
type desk struct {
	httpapi.ImageService     // no test asks it
	httpapi.AccessService    // nor it
	httpapi.OpsService       // nor this
	httpapi.ReportService    // nor this
	httpapi.InventoryService // no test of this file asks it
	mu                       sync.Mutex
	jobs                     []api.Job
	gone                     bool // ended jobs are no longer in ticks
	made                     []api.JobCreate
	asked                    []string // of live jobs
	captured                 []api.CaptureCreate
	cancelled                func() error // nil = nothing happens
	ring                     chan struct{}
	ticked                   chan struct{} // closed by the first tick
	once                     sync.Once
}

func (d *desk) set(fn func()) { d.mu.Lock(); defer d.mu.Unlock(); fn() }

func (d *desk) Server(context.Context) (api.ServerInfo, error) {
	return api.ServerInfo{Name: "lab1", Ready: true}, nil
}
func (d *desk) Rooms(context.Context) ([]api.Room, error)               { return []api.Room{}, nil }
func (d *desk) Hosts(context.Context) ([]api.Host, error)               { return []api.Host{}, nil }
func (d *desk) Host(context.Context, string) (h api.Host, err error)    { return }
func (d *desk) PutHost(_ context.Context, h api.Host) (api.Host, error) { return h, nil }
func (d *desk) RemoveHost(context.Context, string) error                { return nil }
func (d *desk) ImageList(context.Context) ([]api.Image, error)          { return []api.Image{}, nil }
func (d *desk) CancelJob(context.Context, uint64, string) (j api.Job, err error) {
	if d.cancelled == nil {
		return j, nil
	}
	return j, d.cancelled()
}
func (d *desk) Report(context.Context, uint64) (any, error) {
	return map[string]int{"seed_bytes_sent": 9}, nil
}
func (d *desk) Relays(context.Context) ([]api.Relay, error)                    { return []api.Relay{}, nil }
func (d *desk) AddRelay(context.Context, string) (t api.RelayToken, err error) { return }
func (d *desk) RemoveRelay(context.Context, string) error                      { return nil }
func (d *desk) LastEvent(context.Context) (uint64, error)                      { return 2, nil }
func (d *desk) Wake() (<-chan struct{}, func())                                { return d.ring, func() {} }

func (d *desk) EventsSince(_ context.Context, after uint64, _ int) ([]api.Event, error) {
	var out []api.Event
	for n := after + 1; n <= 2; n++ {
		out = append(out, api.Event{Seq: n, Level: "warn", Host: "pc1", Text: "bell \a and \x1b[31mred"})
	}
	return out, nil
}

func (d *desk) Jobs(context.Context) ([]api.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]api.Job{}, d.jobs...), nil
}

func (d *desk) Job(_ context.Context, id uint64) (api.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return api.Job{}, &api.Problem{Status: 404, Code: api.CodeNotFound, Detail: "no such job"}
}

func (d *desk) Tick(context.Context) (api.Tick, error) {
	d.once.Do(func() { close(d.ticked) })
	d.mu.Lock()
	defer d.mu.Unlock()
	t := api.Tick{Time: time.Now(), Jobs: []api.Job{}}
	if !d.gone {
		t.Jobs = append(t.Jobs, d.jobs...)
	}
	return t, nil
}

func (d *desk) PlanJob(_ context.Context, j *api.JobCreate) (api.JobPlan, error) {
	return api.JobPlan{Image: j.Image, Version: "1", Request: *j, PlanDigest: "seen", Erase: 1, Hosts: []api.JobPlanHost{{Host: "pc1", Verdict: "go"}}}, nil
}

func (d *desk) CreateJob(_ context.Context, j *api.JobCreate, _ string) (api.Job, error) {
	d.set(func() { d.made = append(d.made, *j) })
	return api.Job{ID: 5, Image: j.Image, Version: "1", Slots: []api.Slot{{Host: "pc1", State: api.StateArmed}}}, nil
}

// open serves a desk in a new state folder until the test ends.
func open(t *testing.T, jobs ...api.Job) (*desk, string) {
	t.Helper()
	d := &desk{jobs: jobs, ring: make(chan struct{}), ticked: make(chan struct{})}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "labswarm.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- httpapi.NewAdmin(d, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return d, dir
}

// run runs one command line, in a pipe, and returns what it printed.
func run(ctx context.Context, t *testing.T, dir string, args ...string) (code int, out, errOut string) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := null.Close(); err != nil {
			t.Error(err)
		}
	}()
	var o, e bytes.Buffer
	code = Main(ctx, append([]string{"--state-dir", dir}, args...), null, &o, &e)
	return code, o.String(), e.String()
}

func slots(states ...api.State) []api.Slot {
	var out []api.Slot
	for i, s := range states {
		slot := api.Slot{Host: "pc" + string(rune('1'+i)), State: s, Percent: 40, RateBps: 80 << 20}
		if s == api.StateFailed {
			slot.Code, slot.Error = api.CodeDiskWrite, "cannot write at 18.3 GiB: input/output error"
		}
		out = append(out, slot)
	}
	return out
}

func TestWatchEndsWithTheJob(t *testing.T) {
	for _, tt := range []struct {
		result string
		states []api.State
		code   int
	}{
		{"ok", []api.State{api.StateConfirmed, api.StateConfirmed}, ExitOK},
		{"partial", []api.State{api.StateConfirmed, api.StateFailed}, ExitPartial},
		{"failed", []api.State{api.StateFailed, api.StateNoShow}, ExitFailed},
		{"cancelled", []api.State{api.StateCancelled, api.StateCancelled}, ExitFailed},
	} {
		t.Run(tt.result, func(t *testing.T) {
			d, dir := open(t, api.Job{ID: 5, Image: "deb", Version: "1", Slots: slots(api.StateWriting, api.StateArmed)})
			go func() {
				<-d.ticked
				d.set(func() {
					d.jobs = []api.Job{{ID: 5, Image: "deb", Version: "1", Result: tt.result, Slots: slots(tt.states...)}}
				})
			}()
			code, out, _ := run(t.Context(), t, dir, "job", "watch", "5")
			if code != tt.code {
				t.Errorf("exit code = %d; want %d", code, tt.code)
			}
			for _, want := range []string{"pc1              WRITING     40 %", "Report job 5", strings.ToUpper(tt.result)} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if strings.Contains(out, "\x1b") || strings.Contains(out, "\r") {
				t.Errorf("control characters in a pipe: %q", out)
			}
			if tt.code == ExitPartial && !strings.Contains(out, "DW: cannot write at 18.3 GiB: input/output error") {
				t.Errorf("the failure is not told as a sentence:\n%s", out)
			}
		})
	}
}

// TestWatchSurvivesAnAbsence: the job ended while nobody was looking, and ticks
// no longer hold it.
func TestWatchSurvivesAnAbsence(t *testing.T) {
	d, dir := open(t, api.Job{ID: 5, Slots: slots(api.StateWriting)})
	d.gone = true
	go func() {
		<-d.ticked
		d.set(func() { d.jobs = []api.Job{{ID: 5, Result: "ok", Slots: slots(api.StateConfirmed)}} })
	}()
	if code, out, errOut := run(t.Context(), t, dir, "job", "watch", "5"); code != ExitOK {
		t.Errorf("exit code = %d; want 0\n%s%s", code, out, errOut)
	}
}

func TestWatchJSON(t *testing.T) {
	d, dir := open(t, api.Job{ID: 5, Slots: slots(api.StateWriting)})
	go func() {
		<-d.ticked
		d.set(func() { d.jobs = []api.Job{{ID: 5, Result: "ok", Slots: slots(api.StateConfirmed)}} })
	}()
	code, out, _ := run(t.Context(), t, dir, "--json", "job", "watch", "5")
	if code != ExitOK {
		t.Errorf("exit code = %d; want 0", code)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last statusLine
	types := map[string]int{}
	for _, l := range lines {
		var any struct {
			Type string `json:"message_type"`
		}
		if err := json.Unmarshal([]byte(l), &any); err != nil {
			t.Errorf("line %q: %v", l, err)
		}
		if types[any.Type]++; any.Type == "event" {
			continue
		}
		last = statusLine{}
		if err := json.Unmarshal([]byte(l), &last); err != nil || last.ID != 5 {
			t.Errorf("line %q is no job: %v", l, err)
		}
	}
	if types["event"] < 2 || types["status"] < 2 || types["summary"] != 1 || last.Type != "summary" || len(types) != 3 {
		t.Errorf("message types %v, the last %q", types, last.Type)
	}
	if len(lines) < 2 || last.Result != "ok" {
		t.Errorf("%d lines, the last with result %q; want the change and the end", len(lines), last.Result)
	}
}

// TestWatchDetaches: Ctrl-C leaves the job alone and says how to cancel it.
func TestWatchDetaches(t *testing.T) {
	d, dir := open(t, api.Job{ID: 5, Slots: slots(api.StateWriting)})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-d.ticked; cancel() }()
	code, _, errOut := run(ctx, t, dir, "job", "watch", "5")
	if code != ExitInterrupted || !strings.Contains(errOut, "job 5 goes on") || !strings.Contains(errOut, "labswarm job cancel 5") || strings.Contains(errOut, "context") {
		t.Errorf("exit code %d, stderr %q; want 130 and how to cancel", code, errOut)
	}
}

func TestWatchUnknownJob(t *testing.T) {
	_, dir := open(t)
	if code, _, errOut := run(t.Context(), t, dir, "job", "watch", "5"); code != ExitFailed || !strings.Contains(errOut, "no such job") {
		t.Errorf("exit code %d, stderr %q; want 1 and the reason", code, errOut)
	}
}

// TestCreateNeedsTheName: nothing reaches the server without a confirmation.
func TestCreateNeedsTheName(t *testing.T) {
	d, dir := open(t)
	if code, _, _ := run(t.Context(), t, dir, "job", "create", "--image", "deb", "--room", "A101"); code != ExitUsage || len(d.made) != 0 {
		t.Errorf("exit code %d, %d jobs made; want 2 and none", code, len(d.made))
	}
	code, out, _ := run(t.Context(), t, dir, "job", "create", "--image", "deb", "--room", "A101", "--confirm", "A101", "--json")
	var j api.Job
	if err := json.Unmarshal([]byte(out), &j); err != nil || code != ExitOK || j.ID != 5 {
		t.Errorf("exit code %d, %v, answer %q; want one JSON object", code, err, out)
	}
	if len(d.made) != 1 || d.made[0].Confirm != "A101" || d.made[0].DryRun || d.made[0].PlanDigest != "seen" || d.made[0].ConfirmHosts != 1 {
		t.Errorf("asked of the server: %+v", d.made)
	}
	if code, out, _ := run(t.Context(), t, dir, "job", "create", "--image", "deb", "--room", "A101", "--dry-run"); code != ExitOK || len(d.made) != 1 || !strings.Contains(out, "pc1") {
		t.Errorf("dry run: exit code %d, %d jobs made, plan %q", code, len(d.made), out)
	}
}

func TestReportJSON(t *testing.T) {
	_, dir := open(t)
	if code, out, _ := run(t.Context(), t, dir, "--json", "job", "report", "5"); code != ExitOK || !strings.Contains(out, `"seed_bytes_sent": 9`) {
		t.Errorf("exit code %d, output %q; want the server's report", code, out)
	}
}

// TestEvents: the log is printed to its end, and what a machine put into it
// cannot drive the terminal.
func TestEvents(t *testing.T) {
	_, dir := open(t)
	code, out, _ := run(t.Context(), t, dir, "events")
	if code != ExitOK || strings.Count(out, "\n") != 2 || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("exit code %d, output %q; want two clean lines", code, out)
	}
	if _, out, _ = run(t.Context(), t, dir, "events", "--json"); strings.Count(out, "\n") != 2 || !strings.HasPrefix(out, `{"seq":1,`) {
		t.Errorf("events --json = %q; want one object a line", out)
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{usage(io.EOF), ExitUsage},
		{&api.Problem{Status: 409, Code: api.CodeHostBusy}, ExitConflict},
		{&api.Problem{Status: 422, Code: api.CodeConfirm}, ExitUsage},
		{&api.Problem{Status: 403}, ExitNotAllowed},
		{&api.Problem{Status: 404, Code: api.CodeNotFound}, ExitFailed},
		{os.ErrPermission, ExitNotAllowed},
		{io.EOF, ExitFailed},
	} {
		if got := exitCode(t.Context(), tt.err); got != tt.want {
			t.Errorf("exitCode(%v) = %d; want %d", tt.err, got, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := exitCode(ctx, context.Canceled); got != ExitInterrupted {
		t.Errorf("exit code after an interruption = %d; want %d", got, ExitInterrupted)
	}
}
