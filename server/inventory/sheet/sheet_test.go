package sheet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var columns = []string{"room", "seat", "name", "labels"}

func TestCellsKnowTheirPlace(t *testing.T) {
	for format, text := range map[string]string{
		CSV:  "Room,seat,name\n# a comment\nA101,01,\"x, y\"\n\n  ,,\nA101,02,z\n",
		TOML: "[[host]]\nroom = 'A101'\nseat = '01'\nname = 'x, y'\n\n[[host]]\nroom = 'A101'\nseat = 2\nlabels = ['a', 'b']\n",
	} {
		rows, issues := Read(format, "host", columns, text)
		if len(issues) > 0 || len(rows) != 2 || rows[0].Text("name") != "x, y" || rows[1].Text("room") != "A101" {
			t.Fatalf("%s: %+v, %+v", format, rows, issues)
		}
		c := rows[1].Cells["seat"]
		want := map[string][2]int{CSV: {6, 6}, TOML: {8, 1}}[format]
		if c.Line != want[0] || c.Col != want[1] {
			t.Errorf("%s: the second seat is at %d:%d; want %v", format, c.Line, c.Col, want)
		}
		if rows[0].Has("labels") || (format == TOML && rows[1].Text("labels") != "a b") {
			t.Errorf("%s: labels %+v", format, rows)
		}
	}
	rows, issues := Read(CSV, "host", columns, "\ufeffroom;seat;name\r\nA101;01;x\r\n") // from a spreadsheet
	if len(issues) > 0 || len(rows) != 1 || rows[0].Text("seat") != "01" {
		t.Errorf("semicolons: %+v, %+v", rows, issues)
	}
}

func TestBrokenFilesSayWhere(t *testing.T) {
	for name, tc := range map[string]struct {
		format, text string
		line         int
		says         string
	}{
		"empty":            {CSV, "", 1, "empty"},
		"column":           {CSV, "room,colour\nA,b\n", 1, "colour"},
		"column twice":     {CSV, "room,Room\n", 1, "twice"},
		"too many cells":   {CSV, "room,seat\nA,1\nA,1,2\n", 3, "3 cells"},
		"quote":            {CSV, "room\nA\n\"b\n", 3, "quote"},
		"control":          {CSV, "room\nA\x01\n", 2, "control"},
		"not UTF-8":        {CSV, "room\nA\xff\n", 2, "UTF-8"},
		"format":           {"xls", "", 1, "csv or toml"},
		"TOML syntax":      {TOML, "[[host]]\nroom = \n", 2, ""},
		"TOML other table": {TOML, "[[pc]]\nroom = 'a'\n", 1, "[[host]]"},
		"TOML key":         {TOML, "[[host]]\nroom = 'a'\n\n[[host]]\n colour = 'b'\n", 5, "colour"},
		"TOML type":        {TOML, "[[host]]\nroom = 1.5\n", 2, "number"},
		"TOML no table":    {TOML, "", 1, "no table"},
		"too many rows":    {CSV, "room\n" + strings.Repeat("a\n", MaxRows+1), MaxRows + 2, "more than"},
		"too big":          {CSV, strings.Repeat("x", maxBytes+1), 1, "at most"},
	} {
		_, issues := Read(tc.format, "host", columns, tc.text)
		if len(issues) == 0 || issues[0].Line != tc.line || issues[0].Column < 1 || !strings.Contains(issues[0].Text, tc.says) {
			t.Errorf("%s: %+v; want line %d and %q", name, issues, tc.line, tc.says)
		}
	}
}

// TestWhatIsWrittenIsRead: an export comes back as it was, in both formats.
func TestWhatIsWrittenIsRead(t *testing.T) {
	cell := rapid.StringMatching(`[ -~äß€]{0,12}`)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 4).Draw(t, "rows")
		var rows []map[string]string
		for range n {
			r := map[string]string{"room": "A" + strings.TrimSpace(cell.Draw(t, "room"))} // a row of empty cells is no row
			for _, c := range columns[1:] {
				r[c] = strings.TrimSpace(cell.Draw(t, c))
			}
			rows = append(rows, r)
		}
		for _, format := range []string{CSV, TOML} {
			if n == 0 && format == TOML {
				continue // an empty list is no table
			}
			text, err := Write(format, "host", columns, rows)
			if err != nil {
				t.Fatal(err)
			}
			back, issues := Read(format, "host", columns, text)
			if len(issues) > 0 {
				t.Fatalf("%s: %+v in\n%s", format, issues, text)
			}
			var got []map[string]string
			for _, r := range back {
				m := map[string]string{}
				for _, c := range columns {
					m[c] = r.Text(c)
				}
				got = append(got, m)
			}
			if d := cmp.Diff(rows, got); d != "" {
				t.Fatalf("%s (-written +read):\n%s%s", format, d, text)
			}
		}
	})
}

// FuzzRead: no text panics, what is read has a place and fits the limits.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"room,seat\nA,1\n", "room;seat\r\nA;1\r\n", "\"a", "[[host]]\nroom='a'\n", "[[host]]\n[host.x]\n", "[[host]]\nroom=[[1]]\n", "host=1", "room\n,,,\n", "\ufeff", "[[host]]\n\"room\"=1\n=\n"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, asCSV bool) {
		format := TOML
		if asCSV {
			format = CSV
		}
		rows, issues := Read(format, "host", columns, text)
		lines := strings.Count(text, "\n") + 1
		for _, i := range issues {
			if i.Line < 1 || i.Line > lines+1 || i.Column < 1 || i.Text == "" {
				t.Fatalf("an issue without a place: %+v", i)
			}
		}
		if len(rows) > MaxRows {
			t.Fatalf("%d rows", len(rows))
		}
		for _, r := range rows {
			for c, v := range r.Cells {
				if v.Line < 1 || v.Line > lines || v.Col < 1 {
					t.Fatalf("cell %s at %d:%d of %d lines", c, v.Line, v.Col, lines)
				}
			}
		}
	})
}
