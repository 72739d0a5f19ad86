package daemon

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/cells"
	"labswarm/api/order"
	"labswarm/images/manifest"
	"labswarm/server/decide"
)

// captured takes an agent to its order to capture.
func (s *site) captured(h api.Host) *agent {
	s.t.Helper()
	if _, err := s.cli.Capture(s.t.Context(), "lab", api.CaptureCreate{Host: h.Name}); err != nil {
		s.t.Fatal(err)
	}
	s.boot(h, decide.Agent)
	a := newAgent(s, h)
	if rep := a.enrol(); rep.Status != api.EnrolOK || rep.Image != "capture of lab" {
		s.t.Fatalf("enrol = %+v", rep)
	}
	return a
}

// body sends bytes that are no JSON.
func (a *agent) body(route string, raw []byte) (int, api.Problem) {
	a.s.t.Helper()
	req, err := http.NewRequestWithContext(a.s.t.Context(), "POST", "https://"+a.s.srv.agents.Addr().String()+route, bytes.NewReader(raw))
	if err != nil {
		a.s.t.Fatal(err)
	}
	res, err := a.http.Do(req)
	if err != nil {
		a.s.t.Fatal(err)
	}
	defer res.Body.Close()
	var p api.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		a.s.t.Fatal(err)
	}
	return res.StatusCode, p
}

func (a *agent) draft(t *testing.T) api.CaptureDraft {
	t.Helper()
	used, err := manifest.EncodeUsed([]manifest.Extent{{Off: 0, Len: 4 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	return api.CaptureDraft{BootID: a.boot, Size: 8 << 20, Sector: sector, Extents: 1, Used: used}
}

// TestCaptureOrderAllowsNothingElse: no commence, no image, no place in a swarm, no good result by the agent's own word;
// and who is to deploy cannot send cells.
func TestCaptureOrderAllowsNothingElse(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	a := s.captured(h)
	var env order.Envelope
	a.ok("GET", api.RouteOrder, nil, &env)
	if env.Type != order.TypeCapture {
		t.Fatalf("the order is of type %s", env.Type)
	}
	a.progress(api.StateChecking, nil)
	id := a.orderID(t)
	req := api.CommenceRequest{OrderID: id, BootID: a.boot, Disk: a.ev.Disks[0], PlanDigest: order.PlanDigest(id, a.diskID(), 0, 0, 0, 0)}
	a.refused("POST", api.RouteCommence, req, api.CodeStaleFence)
	a.refused("GET", api.RouteImage+"manifest.json", nil, api.CodeNoOrder)
	a.refused("POST", api.RouteProgress, api.Progress{BootID: a.boot, State: api.StateWriting}, api.CodeStaleFence)
	if rep := a.progress(api.StateCapturing, func(p *api.Progress) { p.InSwarm, p.PhaseDone, p.PhaseTotal, p.RateBps = true, 1, 4, 1000 }); rep.Assignment != nil {
		t.Errorf("a capture is given sources: %+v", rep.Assignment)
	}
	if sl := s.wantState("a1", api.StateCapturing); sl.Percent != 25 || sl.RateBps != 1000 || sl.PONR {
		t.Errorf("progress is not shown: %+v", sl)
	}
	if jobs, err := s.cli.Jobs(t.Context()); err != nil || jobs[0].BytesShipped != 4 || jobs[0].EtaS < 0 || jobs[0].RateBps != 1000 {
		t.Errorf("the job: %+v, %v", jobs[0], err)
	}
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, api.Result{BootID: a.boot, OrderID: id, OK: true, Readback: strings.Repeat("0", 64)}, &ack)
	if ack.State != api.StateFailed {
		t.Errorf("the agent's own word makes it %s", ack.State)
	}
	s.boot(h, decide.Local)

	other := s.host("a2")
	if _, err := s.cli.CreateJob(t.Context(), api.JobCreate{Image: s.image, Hosts: []string{"a2"}, Confirm: s.image}); err != nil {
		t.Fatal(err)
	}
	b, _ := s.deploy(other)
	b.refused("GET", api.RouteCapture, nil, api.CodeNoOrder)
	b.refused("POST", api.RouteCapture, b.draft(t), api.CodeNoOrder)
	b.refused("POST", api.RouteCaptureFinish, struct{}{}, api.CodeNoOrder)
	if status, p := b.body(api.RouteCaptureCells, nil); status != http.StatusConflict || p.Code != api.CodeNoOrder {
		t.Errorf("cells of a host that deploys: %d %+v", status, p)
	}
	if _, err := s.cli.Capture(t.Context(), "lab", api.CaptureCreate{Host: "a2"}); err == nil {
		t.Error("a host that is being written can be captured")
	}
	if _, err := s.cli.Capture(t.Context(), "lab", api.CaptureCreate{Host: "nobody"}); err == nil {
		t.Error("a host that is not known can be captured")
	}
	s.wantState("a2", api.StateWriting)
}

// orderID is the order of this session.
func (a *agent) orderID(t *testing.T) string {
	t.Helper()
	status, raw := a.call("GET", api.RouteOrder, nil)
	if status != http.StatusOK {
		t.Fatalf("order: %d %s", status, raw)
	}
	var env struct{ Payload []byte }
	var o struct {
		ID string `json:"order_id"`
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(env.Payload, &o); err != nil || o.ID == "" {
		t.Fatalf("order %s: %v", env.Payload, err)
	}
	return o.ID
}

// TestCaptureFromAStranger: what comes over the network is believed in nothing.
func TestCaptureFromAStranger(t *testing.T) {
	s := newSite(t)
	a := s.captured(s.host("a1"))
	for name, change := range map[string]func(d *api.CaptureDraft){
		"another boot":    func(d *api.CaptureDraft) { d.BootID = strings.Repeat("0", 32) },
		"another size":    func(d *api.CaptureDraft) { d.Size *= 2 },
		"another sector":  func(d *api.CaptureDraft) { d.Sector = 4096 },
		"more extents":    func(d *api.CaptureDraft) { d.Extents = 1 << 40 },
		"a map that ends": func(d *api.CaptureDraft) { d.Used = d.Used[:1] },
		"beyond the end":  func(d *api.CaptureDraft) { d.Used = []byte{0, 0x80, 0x80, 0x80, 0x80, 1} },
	} {
		d := a.draft(t)
		change(&d)
		if status, raw := a.call("POST", api.RouteCapture, d); status != 409 && status != 422 {
			t.Errorf("%s: %d %s; want a refusal", name, status, raw)
		}
	}
	if status, p := a.body(api.RouteCaptureCells, nil); status != 409 || p.Code != api.CodeNotNow {
		t.Errorf("cells before the draft: %d %+v", status, p)
	}
	var st api.CaptureState
	a.ok("POST", api.RouteCapture, a.draft(t), &st)
	for st.Phase == api.CaptureOpening {
		a.ok("GET", api.RouteCapture, nil, &st)
	}
	if st.Phase != api.CaptureReceiving || st.Cells != 16 || st.CellBytes != 256<<10 {
		t.Fatalf("after the draft: %+v", st)
	}
	junk := cells.Head{Len: 5, Sum: [32]byte{1}}
	for name, tt := range map[string]struct {
		raw  []byte
		code string
	}{
		"no stream":     {bytes.Repeat([]byte{0xff}, 100), api.CodeCapture},
		"junk frame":    {append(cells.Append(nil, junk), 1, 2, 3, 4, 5), api.CodeCapture},
		"cut":           {cells.Append(nil, junk), api.CodeNotNow},
		"another cell":  {cells.Append(nil, cells.Head{Ord: 2}), api.CodeNotNow},
		"frame too big": {cells.Append(nil, cells.Head{Len: 1 << 30}), api.CodeCapture},
	} {
		if status, p := a.body(api.RouteCaptureCells, tt.raw); status < 400 || p.Code != tt.code {
			t.Errorf("%s: %d %+v; want %s", name, status, p, tt.code)
		}
	}
	a.ok("POST", api.RouteCaptureFinish, struct{}{}, &st)
	if st.Phase != api.CaptureReceiving || st.Next != 0 {
		t.Errorf("finished with nothing: %+v", st)
	}
	// Zero cells are no disk: the readers find no table, nothing is published.
	var zeros []byte
	for i := range st.Cells {
		zeros = cells.Append(zeros, cells.Head{Ord: i})
	}
	if status, p := a.body(api.RouteCaptureCells, zeros); status != http.StatusOK {
		t.Fatalf("zero cells: %d %+v", status, p)
	}
	a.ok("POST", api.RouteCaptureFinish, struct{}{}, &st)
	for st.Phase == api.CapturePublishing {
		a.ok("GET", api.RouteCapture, nil, &st)
	}
	if st.Phase != api.CaptureFailed || st.Code != api.CodeCapture || !strings.Contains(st.Error, "no partition table") {
		t.Errorf("zero cells: %+v", st)
	}
	if list, err := s.cli.Images(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("images: %+v, %v", list, err)
	}
}
