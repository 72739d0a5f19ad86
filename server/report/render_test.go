package report

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a night with every outcome, and texts that want to be more than text.
func sample() Report {
	t0 := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	line := func(events ...any) (out []api.TimelineEntry) {
		for i := 0; i < len(events); i += 2 {
			out = append(out, api.TimelineEntry{At: at(events[i].(int)), Event: events[i+1].(string)})
		}
		return out
	}
	j := api.Job{
		ID: 118, Image: "win11", Version: "2026-11-19.1", Room: "A101 <b>|", Result: "partial", Created: t0, Ended: at(1320), Cells: 4096, BytesShipped: 4 << 30, SeedSent: 4<<30 + 40<<20, SeedWire: 3 << 30,
		Slots: []api.Slot{
			{Host: "a02", MAC: "52:54:00:00:00:02", Firmware: "uefi", State: api.StateConfirmed, Attempt: 1, PONR: true, Verified: true, OSSeen: true, CellsWritten: 4000, CellsKept: 96, BytesFromSeed: 4 << 30,
				Timeline: line(0, "ARMED: window open", 40, "BOOTING: kernel", 80, "ENROLLED: ok", 85, "CHECKING: 4096 cells", 101, "WRITING: go", 466, "VERIFYING: all", 676, "FINALISING: table", 690, "DONE: equal", 692, "REBOOTING: away", 744, "CONFIRMED: seen")},
			{Host: "a01", MAC: "52:54:00:00:00:01", Firmware: "bios", State: api.StateDone, Attempt: 2, PONR: true, Verified: true, CellsWritten: 4096, BytesFromPeers: 4 << 30, Warnings: []string{"root on LVM: <name> stays the image's"},
				Timeline: line(0, "ARMED: window open", 60, "BOOTING: kernel", 90, "CHECKING: 4096 cells", 110, "WRITING: go", 700, "VERIFYING: all", 1000, "DONE: equal")},
			{Host: "=cmd|' /C calc'!A1", State: api.StateFailed, Attempt: 1, PONR: true, Code: "DW", Error: "write sda at 4096: errno 5 </td><script>alert(1)</script>",
				Timeline: line(0, "ARMED: window open", 50, "BOOTING: kernel", 100, "WRITING: go", 300, "FAILED: disk")},
			{Host: "a07\x1b[2J](http://evil)", State: api.StateNoShow, Error: "never seen\nsecond line", Timeline: line(0, "ARMED: window open", 1320, "NO_SHOW: window end")},
		},
	}
	r := Make(j, at(2000))
	for i := range 20 {
		r.Samples = append(r.Samples, Sample{TS: float64(100 + 30*i), Server: int64(i) * 200 << 20, Peers: int64(i*i) * 20 << 20})
	}
	return r
}

func TestGolden(t *testing.T) {
	for _, format := range Formats {
		got, err := Render(sample(), format)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Render(sample(), format)
		if err != nil || !bytes.Equal(got, again) {
			t.Errorf("%s: the same report gives other bytes (%v)", format, err)
		}
		path := filepath.Join("testdata", "report."+format)
		if *update {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got); go test ./server/report -update writes it anew:\n%s", format, diff)
		}
	}
	if _, err := Render(sample(), "pdf"); err == nil {
		t.Error("an unknown format was accepted")
	}
}

// TestOrder: verdict first, the unusable ones next, figures last.
func TestOrder(t *testing.T) {
	for _, format := range []string{"md", "html"} {
		raw, err := Render(sample(), format)
		if err != nil {
			t.Fatal(err)
		}
		at := -1
		for _, want := range []string{"PARTIAL", "NOT USABLE", "USABLE, OLD IMAGE", "NEW IMAGE", "igures"} {
			i := bytes.Index(raw[max(at, 0):], []byte(want))
			if i < 0 {
				t.Fatalf("%s: %q is missing or too early in\n%s", format, want, raw)
			}
			at = max(at, 0) + i + 1
		}
	}
}

var outside = regexp.MustCompile(`(?i)<script|src=|href=|url\(|@import|<iframe|<object|<link|javascript:|onload=`)

// TestHostileText: whatever hosts are called, the page has the same elements, loads nothing, and a line of CSV stays one host.
func TestHostileText(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[<>&"'|\\x1b\]\[()=+@;,{}#!-]{0,20}`),
		rapid.SampledFrom([]string{`"><img src=x onerror=alert(1)>`, `</svg><script>`, `=HYPERLINK("http://x")`, "a\r\nb,c", "{{.R}}", "<!--", `' onload='x`, "\u202e", "]]>"})).Filter(func(s string) bool { return s != "" })
	count := func(raw []byte) (n int) {
		d := xml.NewDecoder(bytes.NewReader(bytes.ReplaceAll(raw, []byte("<!doctype html>"), nil)))
		d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				return n
			}
			if err != nil {
				return -1
			}
			if _, ok := tok.(xml.StartElement); ok {
				n++
			}
		}
	}
	plain, err := Render(with("x"), "html")
	if err != nil {
		t.Fatal(err)
	}
	want := count(plain)
	rapid.Check(t, func(t *rapid.T) {
		r := with(text.Draw(t, "text"))
		page, err := Render(r, "html")
		if err != nil {
			t.Fatal(err)
		}
		if got := count(page); got != want {
			t.Fatalf("the page has %d elements, want %d:\n%s", got, want, page)
		}
		if strings.ContainsAny(string(page), "\x1b\x00\u202e") {
			t.Fatal("control characters came through")
		}
		raw, err := Render(r, "csv")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
		if err != nil || len(rows) != len(r.Hosts)+1 {
			t.Fatalf("%d rows for %d hosts: %v", len(rows), len(r.Hosts), err)
		}
		for _, c := range rows[1] {
			if c != "" && strings.ContainsRune("=+-@", rune(c[0])) {
				t.Fatalf("cell %q is a formula", c)
			}
		}
		sum, err := Render(r, "md")
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(string(sum), "<\x1b") || strings.Count(string(sum), "\n## ") != 3 {
			t.Fatalf("Markdown:\n%s", sum)
		}
	})
	if m := outside.FindString(strings.ReplaceAll(string(plain), "http-equiv", "")); m != "" {
		t.Errorf("the page asks for %q", m)
	}
}

// with puts a text wherever strangers have a word.
func with(s string) Report {
	r := sample()
	r.Room, r.Image.Name, r.Image.Version = s, s, s
	r.Hosts = r.Hosts[:3]
	for i := range r.Hosts {
		h := &r.Hosts[i]
		h.Name, h.MAC, h.Firmware, h.Error, h.Code = s, s, s, s, "X"+s
		h.Warnings = nil
		h.Timeline = append(h.Timeline, Entry{TS: 5, Event: s})
	}
	return r
}

func TestClass(t *testing.T) {
	for _, tt := range []struct {
		h    Host
		want Class
	}{
		{Host{State: api.StateConfirmed, PONR: true}, Ready}, {Host{State: api.StateWriting, PONR: true}, Busy}, {Host{State: api.StateFailed, PONR: true}, NotUsable},
		{Host{State: api.StateHeld, PONR: true}, NotUsable}, {Host{State: api.StateHeld}, OldImage}, {Host{State: api.StateSkipped}, OldImage}, {Host{State: api.StateArmed}, Busy},
	} {
		if got := tt.h.Class(); got != tt.want {
			t.Errorf("%s, past the point of no return %v: %s; want %s", tt.h.State, tt.h.PONR, got, tt.want)
		}
	}
}

func BenchmarkHTML500(b *testing.B) {
	r := sample()
	one := r.Hosts[0]
	r.Hosts = nil
	for i := range 500 {
		h := one
		h.Name = fmt.Sprintf("pc-%03d", i)
		r.Hosts = append(r.Hosts, h)
	}
	for b.Loop() {
		if _, err := Render(r, "html"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSummary: what the console shows is what the documents say, without what could drive a terminal.
func TestSummary(t *testing.T) {
	r := sample()
	s := r.Summary()
	if s.Verdict != "PARTIAL" || s.Hosts != 4 || s.Ready != 2 || s.DurationS != 1320 || s.Image != "win11/2026-11-19.1" {
		t.Errorf("summary: %+v", s)
	}
	var names []string
	for _, g := range s.Groups {
		names = append(names, fmt.Sprintf("%s %d", g.Name, len(g.Hosts)))
		for _, h := range g.Hosts {
			if strings.ContainsAny(h.Host+h.Text, "\x1b\n") {
				t.Errorf("%q, %q", h.Host, h.Text)
			}
		}
	}
	if diff := cmp.Diff([]string{"NOT USABLE 1", "USABLE, OLD IMAGE 1", "NEW IMAGE 2"}, names); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if got := s.Groups[2].Hosts[1]; got.Host != "a02" || got.Text != "96 cells kept, 4000 fetched; 4.00 GiB server, 0 B PCs; booted" {
		t.Errorf("a host with the image: %+v", got)
	}
	if len(s.Warnings) != 1 || len(s.Figures) < 5 || s.Figures[0].Text != "2 of 4" {
		t.Errorf("warnings %+v, figures %+v", s.Warnings, s.Figures)
	}
}
