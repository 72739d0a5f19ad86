package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Print writes a configuration as a file that Load reads back to the same. Each setting has its help, and where it was told
// when that is no default. No secret is among them: the file only says where secrets are.
func (l *Loaded) Print() string {
	var b strings.Builder
	table := ""
	for _, s := range Settings() {
		t, name, _ := strings.Cut(s.Key, ".")
		if t != table {
			if table != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "[%s]\n", t)
			table = t
		}
		how := "restart"
		if s.Live {
			how = "SIGHUP"
		}
		fmt.Fprintf(&b, "# %s (--%s, %s; %s)", s.Help, s.Flag, s.Env(), how)
		if from := l.From[s.Key]; from != "" {
			fmt.Fprintf(&b, "; from %s", strings.Map(printable, from))
		}
		fmt.Fprintf(&b, "\n%s = %s\n", name, tomlValue(s.Kind, s.Get(&l.Config)))
	}
	return b.String()
}

func printable(r rune) rune {
	if strconv.IsPrint(r) {
		return r
	}
	return -1
}

// tomlValue spells a flag's text as TOML.
func tomlValue(kind Kind, v string) string {
	switch kind {
	case Number, Bool:
		return v
	case List, Map:
		var parts []string
		for p := range strings.SplitSeq(v, ",") {
			if p == "" {
				continue
			}
			if name, n, ok := strings.Cut(p, "="); ok && kind == Map {
				p = quote(name) + " = " + n
			} else {
				p = quote(p)
			}
			parts = append(parts, p)
		}
		if kind == Map {
			return "{" + strings.Join(parts, ", ") + "}"
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return quote(v)
}

// quote writes a TOML basic string: unlike Go, TOML knows no \x.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Change is a setting that differs between two configurations.
type Change struct {
	Key, Old, New string
	Live          bool
}

// Diff lists what differs, in the order of Settings. Both must have been filled in.
func Diff(a, b Config) []Change {
	var out []Change
	for _, s := range Settings() {
		if x, y := s.Get(&a), s.Get(&b); x != y {
			out = append(out, Change{s.Key, x, y, s.Live})
		}
	}
	return out
}

// Adopt returns old with the live settings of next, and what else differs: that needs a restart.
func Adopt(old, next Config) (Config, []Change) {
	changes := Diff(old, next)
	for _, s := range Settings() {
		if s.Live {
			// A value that Get wrote is one that Set takes (tested).
			_ = s.Set(&old, s.Get(&next))
		}
	}
	return old, slices.DeleteFunc(changes, func(c Change) bool { return c.Live })
}
