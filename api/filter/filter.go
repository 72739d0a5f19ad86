// Package filter is the one grammar by which lists are narrowed down: after "/"
// in the console and with --filter on the command line.
//
//	a13               any column holds "a13"
//	room=A101         the column is equal; several values: state=failed,held
//	state!=done       the column is not equal
//	mbps<60 link>=100 numbers; a row without that number does not match
//	!silent           the rest of the term must not match
//	model="870 EVO"   quotes keep blanks together
//
// All terms must match. Case is ignored. Package api/filter is pure and imports
// the standard library only.
package filter

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of a filter's text.
const (
	MaxText  = 500 // bytes
	maxTerms = 20
)

// Row is one line of a list: its columns by name, in small letters.
type Row map[string]string

// Filter is a parsed text; the zero value matches everything.
type Filter struct{ terms []term }

type term struct {
	not    bool
	column string // "" = any
	op     string // "" = holds, =, !=, <, <=, >, >=
	value  string // in small letters
	number float64
}

// Parse reads a filter. columns lists the names that may be asked for; an
// unknown one is an error that names them.
func Parse(text string, columns []string) (Filter, error) {
	if len(text) > MaxText {
		return Filter{}, fmt.Errorf("filter: more than %d characters", MaxText)
	}
	words, err := split(text)
	if err != nil {
		return Filter{}, err
	}
	if len(words) > maxTerms {
		return Filter{}, fmt.Errorf("filter: more than %d terms", maxTerms)
	}
	var f Filter
	for _, w := range words {
		t, err := parseTerm(w, columns)
		if err != nil {
			return Filter{}, err
		}
		f.terms = append(f.terms, t)
	}
	return f, nil
}

// split cuts at blanks outside of quotes; the quotes go.
func split(text string) ([]string, error) {
	var out []string
	var word strings.Builder
	quoted, any := false, false
	for _, r := range text {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case r == ' ' && !quoted:
			if any {
				out = append(out, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("filter %q: a quote is not closed", text)
	}
	if any {
		out = append(out, word.String())
	}
	return out, nil
}

func parseTerm(w string, columns []string) (term, error) {
	t := term{}
	if rest, ok := strings.CutPrefix(w, "!"); ok {
		t.not, w = true, rest
	}
	at := strings.IndexAny(w, "=!<>")
	if at < 0 {
		t.value = strings.ToLower(w)
		return t, nil
	}
	t.column, w = strings.ToLower(w[:at]), w[at:]
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
		if rest, ok := strings.CutPrefix(w, op); ok {
			t.op, t.value = op, strings.ToLower(rest)
			break
		}
	}
	known := false
	for _, c := range columns {
		known = known || c == t.column
	}
	switch {
	case t.op == "":
		return t, fmt.Errorf("filter %q: after a column comes =, !=, <, <=, > or >=", t.column+w)
	case !known:
		return t, fmt.Errorf("filter: there is no column %q; columns are %s", t.column, strings.Join(columns, " "))
	}
	if strings.ContainsAny(t.op, "<>") {
		n, err := strconv.ParseFloat(t.value, 64)
		if err != nil {
			return t, fmt.Errorf("filter: %s%s%s: %q is no number", t.column, t.op, t.value, t.value)
		}
		t.number = n
	}
	return t, nil
}

// Match reports whether all terms match a row.
func (f Filter) Match(r Row) bool {
	for _, t := range f.terms {
		if t.match(r) == t.not {
			return false
		}
	}
	return true
}

// Empty reports whether everything matches.
func (f Filter) Empty() bool { return len(f.terms) == 0 }

func (t term) match(r Row) bool {
	if t.op == "" {
		for _, v := range r {
			if strings.Contains(strings.ToLower(v), t.value) {
				return true
			}
		}
		return false
	}
	have := strings.ToLower(r[t.column])
	switch t.op {
	case "=":
		return oneOf(have, t.value)
	case "!=":
		return !oneOf(have, t.value)
	}
	n, err := strconv.ParseFloat(have, 64)
	if err != nil {
		return false
	}
	switch t.op {
	case "<":
		return n < t.number
	case "<=":
		return n <= t.number
	case ">":
		return n > t.number
	}
	return n >= t.number
}

func oneOf(have, list string) bool {
	for v := range strings.SplitSeq(list, ",") {
		if v == have {
			return true
		}
	}
	return false
}
