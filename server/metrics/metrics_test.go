package metrics

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

func set(tick api.Tick) *Set {
	return New(Sources{Hosts: func() int { return 5 }, Tick: func() api.Tick { return tick }, StoreSize: func() int64 { return 7 },
		ImageFree: func() int64 { return -1 }, Outbox: func() int { return 2 }, Scrubbed: func() (int, int64) { return 1, 0 },
		Schedules: func() []Schedule { return []Schedule{{"nightly", 5000, 0}, {"paused", 0, 4000}} }}, time.Unix(1000, 0))
}

// TestMonitoringUsesWhatExists: each metric that dashboard and rules name is one of ours, and each of ours is used in one of them.
func TestMonitoringUsesWhatExists(t *testing.T) {
	known := map[string]bool{}
	for _, n := range set(api.Tick{}).Names() {
		known[n] = true
	}
	used := map[string]bool{}
	name := regexp.MustCompile(`labswarm_[a-z_]+`)
	for _, f := range []string{"grafana-labswarm.json", "labswarm.rules.yml"} {
		raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "monitoring", f))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f, ".json") && !json.Valid(raw) {
			t.Errorf("%s is no JSON", f)
		}
		for _, n := range name.FindAllString(string(raw), -1) {
			base := strings.TrimSuffix(n, "_bucket")
			used[base] = true
			if !known[base] {
				t.Errorf("%s uses %s, which does not exist", f, n)
			}
		}
	}
	for n := range known {
		if !used[n] && n != "labswarm_build_info" {
			t.Errorf("%s is on no dashboard and in no rule", n)
		}
	}
}

// TestNames pins what other people's dashboards are built on (design: control, section 12).
func TestNames(t *testing.T) {
	have := set(api.Tick{}).Names()
	for n := range strings.FieldsSeq(`build_info hosts jobs job_hosts_total job_phase_duration_seconds commence_total orders_total boot_decisions_total
		written_bytes_total swarm_received_bytes_total seed_sent_bytes_total cell_hash_failures_total disk_errors_total readback_mismatch_total
		announces_total relay_replans_total dhcp_packets_total dhcp_foreign_offers_total tftp_transfers_total http_request_duration_seconds
		scrub_errors_total store_commit_seconds store_size_bytes image_dir_free_bytes outbox_pending
		schedule_next_run_timestamp_seconds schedule_last_success_timestamp_seconds`) {
		if !slices.Contains(have, "labswarm_"+n) {
			t.Errorf("labswarm_%s is missing", n)
		}
	}
}

func TestSample(t *testing.T) {
	slot := api.Slot{Host: "a1", State: api.StateWriting, CellsWritten: 3, BytesFromSeed: 10, BytesFromPeers: 20}
	job := api.Job{ID: 1, Created: time.Unix(2000, 0), CellBytes: 100, SeedSent: 10, Slots: []api.Slot{slot}}
	old := api.Job{ID: 0, Created: time.Unix(500, 0), CellBytes: 100, SeedSent: 1000, Slots: []api.Slot{{Host: "b1", CellsWritten: 50}}}
	tick := api.Tick{Jobs: []api.Job{job, old}}
	s := set(tick)
	s.Sample(tick)
	s.Sample(tick)
	job.Slots = []api.Slot{{Host: "a1", State: api.StateWriting, CellsWritten: 4, BytesFromSeed: 5, BytesFromPeers: 50}} // 5: a new attempt counts anew
	old.Slots = []api.Slot{{Host: "b1", CellsWritten: 51}}
	s.Sample(api.Tick{Jobs: []api.Job{job, old}})
	has(t, s, "labswarm_written_bytes_total 500", // 4 cells of job 1, and 1 of the older job since the start
		`labswarm_swarm_received_bytes_total{source="server"} 10`, `labswarm_swarm_received_bytes_total{source="peers"} 50`, "labswarm_seed_sent_bytes_total 10")
}

// has scrapes and wants each line.
func has(t *testing.T, s *Set, lines ...string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	have := strings.Split(w.Body.String(), "\n")
	for _, l := range lines {
		if !slices.Contains(have, l) {
			t.Errorf("%q is missing in\n%s", l, w.Body)
		}
	}
}

func TestAsked(t *testing.T) {
	s := set(api.Tick{Jobs: []api.Job{
		{ID: 1, Slots: []api.Slot{{Host: "a", State: api.StateWriting}, {Host: "b", State: api.StateWriting}, {Host: "c", State: api.StateHeld}}},
		{ID: 2, Ended: time.Now(), Result: "partial"},
	}})
	has(t, s, `labswarm_hosts{state="held"} 1`, `labswarm_hosts{state="none"} 2`, `labswarm_hosts{state="writing"} 2`,
		`labswarm_jobs{state="live"} 1`, `labswarm_jobs{state="partial"} 1`, "labswarm_outbox_pending 2",
		`labswarm_schedule_next_run_timestamp_seconds{schedule="nightly"} 5000`, `labswarm_schedule_last_success_timestamp_seconds{schedule="paused"} 4000`)
}

func TestTransition(t *testing.T) {
	s := set(api.Tick{})
	s.Transition(api.StateWriting, api.StateFailed, true, api.CodeDiskWrite, time.Minute)
	s.Transition(api.StateVerifying, api.StateFailed, true, api.CodeVerify, time.Minute)
	s.Transition(api.StateRebooting, api.StateConfirmed, true, "", time.Minute)
	has(t, s, `labswarm_job_hosts_total{result="failed"} 2`, `labswarm_job_hosts_total{result="confirmed"} 1`, `labswarm_disk_errors_total{op="write"} 1`,
		"labswarm_readback_mismatch_total 1", `labswarm_job_phase_duration_seconds_count{phase="writing"} 1`)
}
