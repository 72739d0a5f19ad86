package cli

import (
	"strings"
	"testing"
	"time"

	"labswarm/api"
)

func TestScrubLine(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	last, next := now.Add(-90*time.Minute), now.Add(time.Hour)
	for _, tt := range []struct {
		scrub *api.RelayScrub
		want  []string
		not   string
	}{
		{nil, nil, "verif"},
		{&api.RelayScrub{Last: last, Next: next}, []string{"verified 1h30m0s ago: all right", "next " + next.Local().Format("2006-01-02 15:04")}, "damaged"},
		{&api.RelayScrub{Last: last, Next: next, Damaged: 2}, []string{"2 cells and 0 compressed ones were damaged", "smartctl"}, "all right"},
		{&api.RelayScrub{Running: true, Done: 5}, []string{"verifies its disk, 5 of 10 cells"}, "waits"},
		{&api.RelayScrub{Running: true, Done: 5, Paused: true, Last: last}, []string{"5 of 10 cells, waits while hosts are served", "verified 1h30m0s ago"}, "next"},
	} {
		r := api.Relay{Name: "annex", Alive: true, Images: []api.RelayImage{{Name: "i", Version: "1", Pieces: 10, Scrub: tt.scrub}}}
		got := relayLines(r, now)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%+v: %q; want %q in it", tt.scrub, got, want)
			}
		}
		if strings.Contains(got, tt.not) {
			t.Errorf("%+v: %q; want no %q", tt.scrub, got, tt.not)
		}
	}
}
