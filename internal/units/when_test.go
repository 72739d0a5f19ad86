package units

import (
	"testing"
	"time"
)

func TestParseWhen(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 11, 20, 21, 30, 0, 0, berlin)
	for text, want := range map[string]string{
		"now": "2026-11-20 21:30", "22:00": "2026-11-20 22:00", "6:00": "2026-11-21 06:00", "21:30": "2026-11-21 21:30", "2h30m": "2026-11-21 00:00", "+45m": "2026-11-20 22:15",
		"2026-11-22 22:00": "2026-11-22 22:00", "2026-11-22T22:00": "2026-11-22 22:00", "2026-11-22T21:00:00Z": "2026-11-22 22:00", " 23:59 ": "2026-11-20 23:59",
		"": "", "tonight": "", "25:00": "", "-1h": "", "0s": "", "22": "", "2026-13-01 10:00": "",
	} {
		got, err := ParseWhen(text, from)
		if shown := got.In(berlin).Format("2006-01-02 15:04"); (err == nil) != (want != "") || err == nil && shown != want {
			t.Errorf("ParseWhen(%q) = %s, %v; want %q", text, shown, err, want)
		}
	}
	// The night in which 02:30 does not exist: the next one that does.
	if got, err := ParseWhen("06:00", time.Date(2026, 3, 28, 22, 0, 0, 0, berlin)); err != nil || got.Format("02 15:04") != "29 06:00" {
		t.Errorf("over a clock change: %s, %v", got, err)
	}
}
