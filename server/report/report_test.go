package report

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
)

func TestMake(t *testing.T) {
	t0 := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	j := api.Job{
		ID: 7, Image: "deb", Version: "2026-11-20.1", Room: "A101", Created: t0, Cells: 360, BytesShipped: 360 << 20, SeedSent: 361 << 20, SeedWire: 100 << 20,
		Slots: []api.Slot{{
			Host: "a1", MAC: "52:54:00:00:00:01", Firmware: "uefi", State: api.StateConfirmed, Attempt: 1, Verified: true, OSSeen: true,
			CellsWritten: 350, CellsKept: 10, BytesFromSeed: 1, BytesFromPeers: 2,
			Timeline: []api.TimelineEntry{{At: t0.Add(1500 * time.Millisecond), Event: "ARMED"}},
		}},
	}
	got, err := json.Marshal(Make(j, t0.Add(90*time.Second)))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"job":7,"room":"A101","result":"","created":"2026-11-20T02:00:00Z",` +
		`"image":{"name":"deb","version":"2026-11-20.1","bytes_shipped":377487360,"cells":360},"seed_bytes_sent":378535936,"seed_wire_bytes":104857600,"duration_s":90,` +
		`"cells":{"total":360,"kept":10,"fetched":350,"fetched_percent":97.2,"bytes_from_seed":1,"bytes_from_peers":2},` +
		`"hosts":[{"name":"a1","mac":"52:54:00:00:00:01","firmware":"uefi","state":"CONFIRMED","attempts":1,"bytes_from_seed":1,"bytes_from_peers":2,` +
		`"cells_total":360,"cells_written":350,"cells_kept":10,"verified":true,"local_os":true,"error":"","timeline":[{"t_s":1.5,"event":"ARMED"}]}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	// A second attempt kept what the first one had fetched; a host that is not proven does not count.
	j.Slots = append(j.Slots, api.Slot{Host: "a2", Verified: true, CellsWritten: 300, CellsKept: 340}, api.Slot{Host: "a3", CellsWritten: 7})
	if c := Make(j, t0).Cells; c.Total != 720 || c.Kept != 10+60 || c.Fetched != 650 || c.FetchedPercent != 90.3 {
		t.Errorf("cells of two hosts: %+v", c)
	}
	j.Ended = t0.Add(time.Minute)
	if r := Make(j, t0.Add(time.Hour)); r.DurationS != 60 {
		t.Errorf("duration of an ended job = %v; want 60", r.DurationS)
	}
}
