package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/report"
)

// TestKeptReport: a job that ended has its report in the state folder, in every form, also after its records are gone.
func TestKeptReport(t *testing.T) {
	s := newSite(t)
	if _, err := s.cli.PutHost(t.Context(), api.Host{Name: "a1", Room: "r1", MAC: "52:54:00:00:00:01", UUID: "00112233-4455-6677-8899-aabbccddee01"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.cli.CreateJob(t.Context(), api.JobCreate{Image: "tiny", Room: "r1", Confirm: "r1"}); err != nil {
		t.Fatal(err)
	}
	if d, err := s.cli.Rendered(t.Context(), 1, "md"); err != nil || !strings.Contains(d.Text, "LIVE") {
		t.Errorf("report of a live job: %+v, %v", d, err)
	}
	if _, err := s.cli.CancelJob(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var list []api.ReportInfo
	for range 200 {
		var err error
		if list, err = s.cli.Reports(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if len(list) != 1 || list[0].Job != 1 || list[0].Hosts != 1 || list[0].Room != "r1" || list[0].Result == "" {
		t.Fatalf("reports: %+v", list)
	}
	for _, f := range report.Formats {
		if d, err := s.cli.Rendered(t.Context(), 1, f); err != nil || !strings.Contains(d.Text, "a1") {
			t.Errorf("%s: %+v, %v", f, d, err)
		}
	}
	if _, err := s.cli.Rendered(t.Context(), 1, "pdf"); err == nil {
		t.Error("format pdf was accepted")
	}
	if _, err := s.cli.Rendered(t.Context(), 99, "md"); err == nil {
		t.Error("a job that never was has a report")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "reports", "job-000001.json")); err != nil {
		t.Error(err)
	}
}

func TestRing(t *testing.T) {
	var r ring
	for i := range 100_000 {
		r.add(report.Sample{TS: float64(2 * i), Server: int64(i)})
	}
	if len(r.list) > samplesKept || len(r.list) < samplesKept/4 || r.list[0].TS != 0 {
		t.Fatalf("%d samples, the first at %v", len(r.list), r.list[0].TS)
	}
	if last := r.list[len(r.list)-1].TS; last < 190_000 {
		t.Errorf("the last sample is of %v s", last)
	}
	for i := 1; i < len(r.list); i++ {
		if r.list[i].TS <= r.list[i-1].TS {
			t.Fatalf("samples %d and %d are not in order", i-1, i)
		}
	}
}
