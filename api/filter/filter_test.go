package filter

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var columns = []string{"host", "room", "state", "mbps", "link", "model"}

var rows = map[string]Row{
	"a13": {"host": "a13", "room": "A101", "state": "failed", "mbps": "", "link": "1000", "model": "870 EVO"},
	"a20": {"host": "a20", "room": "A101", "state": "writing", "mbps": "35.5", "link": "100", "model": "WD10"},
	"b02": {"host": "b02", "room": "B001", "state": "done", "mbps": "88", "link": "1000", "model": "870 EVO"},
}

func TestMatch(t *testing.T) {
	for text, want := range map[string]string{
		"": "a13 a20 b02", "  ": "a13 a20 b02", "a13": "a13", "A1": "a13 a20", "evo": "a13 b02",
		"room=a101": "a13 a20", "room!=A101": "b02", "state=failed,done": "a13 b02", "mbps<60": "a20", "mbps>=88": "b02", "mbps>88": "",
		"room=A101 state!=failed mbps<60 link<1000": "a20", "!failed": "a20 b02", "!mbps<60": "a13 b02", "!room=A101": "b02",
		`model="870 evo"`: "a13 b02", `"70 e"`: "a13 b02", "mbps<=35.5": "a20", "state=": "",
	} {
		f, err := Parse(text, columns)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		var got []string
		for _, h := range []string{"a13", "a20", "b02"} {
			if f.Match(rows[h]) {
				got = append(got, h)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q matches %v, want %s", text, got, want)
		}
	}
}

func TestBadFilters(t *testing.T) {
	for text, want := range map[string]string{
		"rom=A101": "no column \"rom\"", "mbps<fast": "no number", `model="870`: "quote", "room!A101": "comes =", strings.Repeat("a ", 30): "terms", strings.Repeat("a", 600): "characters",
	} {
		if _, err := Parse(text, columns); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want %q", text, err, want)
		}
	}
}

// TestNotInverts: "!" before a single term selects exactly the other rows.
func TestNotInverts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.StringMatching(`(room|state|host)?(=|!=)?[a-z0-9,]{1,5}`).Draw(rt, "term")
		f, err := Parse(word, columns)
		if err != nil || strings.HasPrefix(word, "!") {
			return
		}
		g, err := Parse("!"+word, columns)
		if err != nil {
			rt.Fatal(err)
		}
		for name, r := range rows {
			if f.Match(r) == g.Match(r) {
				rt.Errorf("%q and !%q agree on %s", word, word, name)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "room=A101 !x", `a="b c" mbps<3`, "!!!", "=", "<"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		p, err := Parse(text, columns)
		if err == nil {
			for _, r := range rows {
				p.Match(r)
			}
		}
	})
}
