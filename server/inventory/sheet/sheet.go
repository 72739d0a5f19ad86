// Package sheet reads and writes lists of rooms and hosts as CSV and TOML: rows
// of named text cells that know where they stand in the file. It knows the
// columns and nothing of what they mean. Called by server/inventory on files
// from people, so nothing here panics and everything has a limit.
package sheet

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"labswarm/api"
)

// Limits of a file.
const (
	MaxRows  = 2000
	maxCell  = 8 << 10 // bytes; a room's seats stand in one cell
	maxBytes = 1 << 20
)

// Formats.
const (
	CSV  = "csv"
	TOML = "toml"
)

// Cell is one value and where it stands; lines and columns count from 1.
type Cell struct {
	Text      string
	Line, Col int
}

// Row is one object of a file. A column that the file does not have is not in
// Cells.
type Row struct {
	Line  int
	Cells map[string]Cell
}

// Text is the value of a column, "" when it is not there.
func (r Row) Text(col string) string { return r.Cells[col].Text }

// Has reports whether the file has the column in this row.
func (r Row) Has(col string) bool { _, ok := r.Cells[col]; return ok }

// Issue is something wrong with a column of the row.
func (r Row) Issue(col, format string, a ...any) api.ImportIssue {
	c, ok := r.Cells[col]
	if !ok {
		c = Cell{Line: r.Line, Col: 1}
	}
	return api.ImportIssue{Line: c.Line, Column: c.Col, Field: col, Text: fmt.Sprintf(format, a...)}
}

// Read returns the rows of a file with these columns. table is the name of the
// tables in TOML: [[host]]. All that is wrong is returned at once.
func Read(format, table string, columns []string, text string) ([]Row, []api.ImportIssue) {
	switch {
	case len(text) > maxBytes:
		return nil, one(1, 1, "the file has %d bytes, at most %d", len(text), maxBytes)
	case !utf8.ValidString(text):
		return nil, one(badLine(text), 1, "the text is not UTF-8: save the file as UTF-8")
	}
	text = strings.TrimPrefix(text, "\ufeff") // spreadsheets put it there
	var rows []Row
	var issues []api.ImportIssue
	switch format {
	case CSV:
		rows, issues = readCSV(columns, text)
	case TOML:
		rows, issues = readTOML(table, columns, text)
	default:
		return nil, one(1, 1, "format %q: use csv or toml", format)
	}
	if len(rows) > MaxRows {
		return nil, one(rows[MaxRows].Line, 1, "more than %d rows", MaxRows)
	}
	for _, r := range rows {
		for _, col := range columns {
			if c := r.Cells[col]; len(c.Text) > maxCell || strings.ContainsFunc(c.Text, func(x rune) bool { return x < ' ' || x == 0x7f }) {
				issues = append(issues, r.Issue(col, "more than %d bytes, or a control character", maxCell))
			}
		}
	}
	return rows, issues
}

func one(line, col int, format string, a ...any) []api.ImportIssue {
	return []api.ImportIssue{{Line: line, Column: col, Text: fmt.Sprintf(format, a...)}}
}

func badLine(text string) int {
	for i, l := range strings.Split(text, "\n") {
		if !utf8.ValidString(l) {
			return i + 1
		}
	}
	return 1
}

func readCSV(columns []string, text string) ([]Row, []api.ImportIssue) {
	rd := csv.NewReader(strings.NewReader(text))
	rd.FieldsPerRecord, rd.TrimLeadingSpace, rd.Comment = -1, true, '#'
	head, _, _ := strings.Cut(text, "\n")
	if strings.Contains(head, ";") && !strings.Contains(head, ",") {
		rd.Comma = ';' // what spreadsheets write where the comma is the decimal point
	}
	names, err := rd.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, one(1, 1, "the file is empty; its first line names the columns: %s", strings.Join(columns, ","))
		}
		return nil, []api.ImportIssue{csvIssue(err)}
	}
	issues := header(rd, names, columns)
	var rows []Row
	for {
		rec, err := rd.Read()
		if errors.Is(err, io.EOF) {
			return rows, issues
		}
		if err != nil {
			return rows, append(issues, csvIssue(err))
		}
		line, _ := rd.FieldPos(0)
		row := Row{Line: line, Cells: map[string]Cell{}}
		empty := true
		for i, v := range rec {
			l, c := rd.FieldPos(i)
			if i >= len(names) {
				issues = append(issues, api.ImportIssue{Line: l, Column: c, Text: fmt.Sprintf("%d cells, but the first line names %d columns", len(rec), len(names))})
				break
			}
			v = strings.TrimSpace(v)
			empty = empty && v == ""
			row.Cells[names[i]] = Cell{Text: v, Line: l, Col: c}
		}
		if !empty {
			rows = append(rows, row)
		}
		if len(rows) > MaxRows {
			return rows, issues
		}
	}
}

// header brings the column names into one spelling, in place.
func header(rd *csv.Reader, names, columns []string) (issues []api.ImportIssue) {
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSpace(names[i]))
		l, c := rd.FieldPos(i)
		switch {
		case !slices.Contains(columns, names[i]):
			issues = append(issues, api.ImportIssue{Line: l, Column: c, Text: fmt.Sprintf("column %.40q is not known; there are: %s", names[i], strings.Join(columns, ","))})
		case slices.Contains(names[:i], names[i]):
			issues = append(issues, api.ImportIssue{Line: l, Column: c, Text: fmt.Sprintf("column %q stands there twice", names[i])})
		}
	}
	return issues
}

func csvIssue(err error) api.ImportIssue {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return api.ImportIssue{Line: p.Line, Column: p.Column, Text: p.Err.Error()}
	}
	return api.ImportIssue{Line: 1, Column: 1, Text: err.Error()}
}

func readTOML(table string, columns []string, text string) ([]Row, []api.ImportIssue) {
	var doc map[string]any
	if _, err := toml.Decode(text, &doc); err != nil {
		var p toml.ParseError
		if errors.As(err, &p) {
			return nil, one(max(p.Position.Line, 1), max(p.Position.Col, 1), "%s", p.Message)
		}
		return nil, one(1, 1, "%v", err)
	}
	where := findTables(table, text)
	var issues []api.ImportIssue
	for key := range doc {
		if key != table {
			issues = append(issues, one(lineOf(key, text), 1, "%.40q is not known here: write tables [[%s]]", key, table)...)
		}
	}
	sort.Slice(issues, func(i, j int) bool { return issues[i].Line < issues[j].Line })
	list, ok := doc[table].([]map[string]any)
	if !ok {
		if len(issues) == 0 {
			issues = one(1, 1, "no table [[%s]] in the file", table)
		}
		return nil, issues
	}
	var rows []Row
	for i, t := range list {
		pos := tablePos{line: 1}
		if i < len(where) {
			pos = where[i]
		}
		row := Row{Line: pos.line, Cells: map[string]Cell{}}
		for key, v := range t {
			at, ok := pos.keys[strings.ToLower(key)]
			if !ok {
				at = [2]int{pos.line, 1}
			}
			cell := Cell{Line: at[0], Col: at[1]}
			text, ok := scalar(v)
			switch {
			case !slices.Contains(columns, key):
				issues = append(issues, api.ImportIssue{Line: cell.Line, Column: cell.Col, Field: key, Text: fmt.Sprintf("%.40q is not known; there are: %s", key, strings.Join(columns, ", "))})
				continue
			case !ok:
				issues = append(issues, api.ImportIssue{Line: cell.Line, Column: cell.Col, Field: key, Text: "use a text, a number, true or false, or a list of these"})
				continue
			}
			cell.Text = strings.TrimSpace(text)
			row.Cells[key] = cell
		}
		rows = append(rows, row)
	}
	return rows, issues
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64, bool:
		return fmt.Sprint(v), true
	case []any:
		var out []string
		for _, e := range v {
			s, ok := scalar(e)
			if !ok {
				return "", false
			}
			out = append(out, s)
		}
		return strings.Join(out, " "), true
	}
	return "", false
}

// tablePos says where a [[table]] and its keys stand: the decoder tells it for
// errors of syntax only.
type tablePos struct {
	line int
	keys map[string][2]int
}

func findTables(table, text string) (out []tablePos) {
	for i, l := range strings.Split(text, "\n") {
		t := strings.TrimSpace(l)
		if name, ok := strings.CutPrefix(t, "[["); ok {
			name, _, _ = strings.Cut(name, "]]")
			if strings.Trim(strings.TrimSpace(name), `"'`) == table {
				out = append(out, tablePos{line: i + 1, keys: map[string][2]int{}})
			}
			continue
		}
		if k, _, ok := strings.Cut(t, "="); ok && len(out) > 0 {
			k = strings.ToLower(strings.Trim(strings.TrimSpace(k), `"'`))
			last := out[len(out)-1]
			if _, seen := last.keys[k]; !seen {
				last.keys[k] = [2]int{i + 1, strings.Index(l, t[:1]) + 1}
			}
		}
	}
	return out
}

func lineOf(key, text string) int {
	for i, l := range strings.Split(text, "\n") {
		if strings.Contains(l, key) {
			return i + 1
		}
	}
	return 1
}

// Write renders rows of text cells. Read gives the same cells back.
func Write(format, table string, columns []string, rows []map[string]string) (string, error) {
	var b bytes.Buffer
	switch format {
	case CSV:
		w := csv.NewWriter(&b)
		if err := w.Write(columns); err != nil {
			return "", err
		}
		for _, r := range rows {
			rec := make([]string, len(columns))
			for i, c := range columns {
				rec[i] = r[c]
			}
			if err := w.Write(rec); err != nil {
				return "", err
			}
		}
		w.Flush()
		return b.String(), w.Error()
	case TOML:
		list := make([]map[string]string, len(rows))
		for i, r := range rows {
			list[i] = map[string]string{}
			for _, c := range columns {
				if r[c] != "" {
					list[i][c] = r[c]
				}
			}
		}
		enc := toml.NewEncoder(&b)
		enc.Indent = ""
		err := enc.Encode(map[string]any{table: list})
		return b.String(), err
	}
	return "", fmt.Errorf("write list: format %q: use csv or toml", format)
}
