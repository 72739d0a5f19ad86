package screen

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labswarm/api"
)

var update = flag.Bool("update", false, "rewrite the goldens")

var sizes = []Size{VGA, {40, 25}}

// views are all states of the screen, in the order of a night.
func views() []struct {
	name string
	v    View
} {
	base := View{Room: "A101", Seat: "a13", Host: "A101-a13", Image: "win11/2026-11", Job: 118, Server: "10.8.1.2", IP: "10.8.1.23",
		MAC: "b4:2e:99:00:1a:0d", SpeedMbps: 1000, Serial: "PF1ABC23", Version: "1.4.0"}
	in := func(st api.State, f func(*View)) View {
		v := base
		v.State = st
		if f != nil {
			f(&v)
		}
		return v
	}
	const gib = 1 << 30
	written := func(done int64) func(*View) {
		return func(v *View) {
			v.Committed, v.Done, v.Total, v.RateBps, v.Parent = true, done, 31*gib, 88<<20, "a09"
		}
	}
	fail := func(code string, committed bool, text string) func(*View) {
		return func(v *View) {
			v.Code, v.Problem, v.Committed, v.Detail = code, text, committed, "This PC restarts in 1m0s."
		}
	}
	type named = struct {
		name string
		v    View
	}
	list := []named{
		{"starting", View{Version: "1.4.0", Detail: "loading drivers"}},
		{"waiting for the order", in(api.StateEnrolled, func(v *View) { v.Detail = "waiting for the order" })},
		{"checking, at 100 %", in(api.StateChecking, func(v *View) { v.Done, v.Total, v.RateBps = 31*gib, 31*gib, 200<<20 })},
		{"writing, at 0 %", in(api.StateWriting, written(0))},
		{"writing", in(api.StateWriting, written(13*gib))},
		{"writing, nothing comes", in(api.StateWriting, func(v *View) { written(13 * gib)(v); v.RateBps, v.Idle = 0, 41*time.Second })},
		{"writing, nobody sends", in(api.StateWriting, func(v *View) { written(13 * gib)(v); v.Parent, v.RateBps, v.Idle = "", 0, 12*time.Minute })},
		{"verifying", in(api.StateVerifying, written(30*gib))},
		{"verifying, stuck", in(api.StateVerifying, func(v *View) { written(30 * gib)(v); v.Idle = 30 * time.Second })},
		{"finalising", in(api.StateFinalising, func(v *View) { v.Committed = true })},
		{"done", in(api.StateDone, func(v *View) { v.Committed, v.Verified, v.Detail = true, true, "helping the others" })},
		{"restarting", in(api.StateRebooting, func(v *View) { v.Committed, v.Verified = true, true })},
		{"capturing", in(api.StateCapturing, func(v *View) { v.Capture, v.Done, v.Total, v.RateBps = true, 5*gib, 9*gib, 90<<20 })},
		{"enrolment code", View{EnrolCode: "407916", MAC: base.MAC, Serial: base.Serial, Server: base.Server, IP: base.IP, SpeedMbps: 1000, Version: "1.4.0"}},
		{"bound to a seat", View{Bound: true, Host: "A101-a13", Room: "A101", Seat: "a13", MAC: base.MAC, Version: "1.4.0"}},
		{"failed after commence", in(api.StateWriting, fail("DW-4K7P", true, "write sda at byte 19649265664 (sector 38377472): input/output error. The disk refused a write; test or replace it"))},
		{"failed before commence", in(api.StateChecking, fail("DS-9QXZ", false, "nothing was written: the image needs a disk of 240057409536 bytes, this one is too small"))},
		{"failed when proven", in(api.StateDone, func(v *View) { fail("CR-2222", true, "invalid memory address")(v); v.Verified = true })},
		{"no server", View{Version: "1.4.0", MAC: base.MAC, Code: "NS", Problem: "the server 10.8.1.2:7440 does not answer for 1m0s"}},
	}
	return list
}

// TestGoldens shows every state in every language and both widths.
func TestGoldens(t *testing.T) {
	for _, lang := range api.Languages() {
		for _, size := range sizes {
			var b strings.Builder
			for _, n := range views() {
				n.v.Language = lang
				fmt.Fprintf(&b, "=== %s\n%s\n", n.name, strings.Join(n.v.Page(size), "\n"))
			}
			path := filepath.Join("testdata", fmt.Sprintf("%s-%dx%d.txt", lang, size.Cols, size.Rows))
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != b.String() {
				t.Errorf("%s differs; go test -run Goldens -update rewrites it, then read it. Got:\n%s", path, b.String())
			}
		}
	}
}

// TestNothingIsLost: what a person needs is on the page whatever the width and
// the language: the sentence, the code and its words.
func TestNothingIsLost(t *testing.T) {
	for _, lang := range api.Languages() {
		for _, size := range sizes {
			for _, n := range views() {
				n.v.Language = lang
				page := strings.Join(strings.Fields(strings.Join(n.v.Page(size), " ")), " ")
				wants := []string{n.v.Advice()}
				switch {
				case n.v.Problem != "":
					wants = append(wants, n.v.Code, spell(n.v.Code), language(lang).others)
				case n.v.EnrolCode != "":
					wants = []string{language(lang).safe, n.v.EnrolCode}
				case n.v.Bound:
					wants = nil
				case n.v.Percent() >= 0:
					wants = append(wants, "#") // percent in block letters or in words
				}
				for _, want := range wants {
					if !strings.Contains(page, want) {
						t.Errorf("%s %v %s: the page lacks %q:\n%s", lang, size, n.name, want, strings.Join(n.v.Page(size), "\n"))
					}
				}
			}
		}
	}
}

// TestPageFitsTheScreen: no line is as wide as the screen, and no page as high,
// whatever a server or a person has typed.
func TestPageFitsTheScreen(t *testing.T) {
	word := rapid.StringN(0, 60, 200)
	rapid.Check(t, func(rt *rapid.T) {
		v := View{
			Room: word.Draw(rt, "room"), Host: word.Draw(rt, "host"), Seat: word.Draw(rt, "seat"), Image: word.Draw(rt, "image"), Detail: word.Draw(rt, "detail"),
			Server: word.Draw(rt, "server"), Parent: word.Draw(rt, "parent"), Serial: word.Draw(rt, "serial"), MAC: word.Draw(rt, "mac"),
			Language: rapid.SampledFrom(append(api.Languages(), "xx")).Draw(rt, "language"),
			State:    rapid.SampledFrom(api.AllStates()).Draw(rt, "state"), Done: rapid.Int64Min(0).Draw(rt, "done"), Total: rapid.Int64Range(-1, 1<<45).Draw(rt, "total"),
			RateBps: rapid.Int64Min(-1).Draw(rt, "rate"), Job: rapid.Uint64().Draw(rt, "job"), SpeedMbps: rapid.Int().Draw(rt, "speed"),
			Committed: rapid.Bool().Draw(rt, "committed"), Verified: rapid.Bool().Draw(rt, "verified"), Capture: rapid.Bool().Draw(rt, "capture"),
			Idle: time.Duration(rapid.Int64Range(0, 1<<45).Draw(rt, "idle")),
		}
		switch rapid.IntRange(0, 3).Draw(rt, "page") {
		case 0:
			v.Problem, v.Code = word.Draw(rt, "problem"), word.Draw(rt, "code")
		case 1:
			v.EnrolCode = word.Draw(rt, "enrol")
		case 2:
			v.Bound = true
		}
		size := Size{rapid.IntRange(20, 200).Draw(rt, "cols"), rapid.IntRange(10, 60).Draw(rt, "rows")}
		page := v.Page(size)
		if len(page) >= size.Rows {
			rt.Errorf("%d lines on %v", len(page), size)
		}
		for _, l := range page {
			if len(l) >= size.Cols || l != ascii(l) {
				rt.Errorf("line of %d columns on %v: %q", len(l), size, l)
			}
		}
	})
}

// TestWordsAreComplete: every language says everything, in ASCII.
func TestWordsAreComplete(t *testing.T) {
	for _, lang := range api.Languages() {
		w := reflect.ValueOf(*language(lang))
		for i := range w.NumField() {
			name, f := w.Type().Field(i).Name, w.Field(i)
			if f.Kind() == reflect.String && (f.String() == "" || ascii(f.String()) != f.String()) {
				t.Errorf("%s.%s = %q", lang, name, f.String())
			}
			if f.Kind() != reflect.Map {
				continue
			}
			en := reflect.ValueOf(english).Field(i)
			if name == "details" {
				en = reflect.ValueOf(italian).Field(i) // the words themselves are English
				if lang == "en" {
					continue
				}
			}
			if f.Len() != en.Len() {
				t.Errorf("%s.%s has %d entries; want %d", lang, name, f.Len(), en.Len())
			}
			for it := en.MapRange(); it.Next(); {
				v := f.MapIndex(it.Key())
				if !v.IsValid() || v.String() == "" || ascii(v.String()) != v.String() {
					t.Errorf("%s.%s[%v] is %v", lang, name, it.Key(), v)
				}
			}
		}
		if lang != "en" && language(lang) == &english {
			t.Errorf("there is no table for %s", lang)
		}
	}
}

func TestSpell(t *testing.T) {
	if got, want := spell("DW-4K7P"), "delta whiskey four kilo seven papa"; got != want {
		t.Errorf("spell = %q; want %q", got, want)
	}
	for _, c := range api.ReadOutAlphabet {
		if radio[c] == "" || glyphs[c] == "" {
			t.Errorf("%c cannot be spelled or drawn", c)
		}
	}
}

// TestIdleIsMeasured: half a minute without a byte is shown, and a byte ends it.
func TestIdleIsMeasured(t *testing.T) {
	s := &Screen{}
	s.Update(func(v *View) { v.State, v.Done, v.Total, v.Parent, v.Committed = api.StateWriting, 5, 10, "a09", true })
	s.moved = s.moved.Add(-41 * time.Second) // no test waits that long
	s.Update(func(v *View) { v.RateBps = 1 })
	if page := strings.Join(s.View().Page(VGA), "\n"); !strings.Contains(page, "waiting for data from a09, 0:41") || !strings.Contains(page, "DO NOT SWITCH OFF") {
		t.Errorf("nothing came for 41 s:\n%s", page)
	}
	s.Update(func(v *View) { v.Done = 6 })
	if page := strings.Join(s.View().Page(VGA), "\n"); strings.Contains(page, "waiting") {
		t.Errorf("a byte came:\n%s", page)
	}
}
