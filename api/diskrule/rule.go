package diskrule

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/internal/units"
)

// Syntax is the rule's form in one line, for help and errors.
const Syntax = "SERIAL or WWN, or terms joined by commas: serial=S, wwn=W, model=GLOB, bus=nvme|sata|scsi|virtio|mmc, size=MIN..MAX"

const (
	maxRule  = 200 // characters
	maxTerms = 8
)

// Buses lists the buses of disks that can be written. USB is none of them.
var buses = []string{"nvme", "sata", "scsi", "virtio", "mmc", "loop"}

// Rule says which disks an admin means. Its zero value allows every disk. Model is a glob with * and ?, compared
// without case, as are serial and WWN.
type Rule struct {
	text string

	id          string // serial or WWN
	serial, wwn string
	model       string
	buses       []string
	minB, maxB  int64 // bytes, inclusive; maxB 0 = no limit
}

// String returns the rule as it was given.
func (r Rule) String() string { return r.text }

// Exact reports whether the rule names one disk by serial number or WWN.
func (r Rule) Exact() bool { return r.id != "" || r.serial != "" || r.wwn != "" }

// Zero reports whether the rule allows every disk.
func (r Rule) Zero() bool { return r.text == "" }

// Parse reads a rule. Text without "=" is a serial number or WWN; else it is terms joined by commas, each at most
// once, all of which must hold. Sizes are those of units.ParseSize (binary: 400G is 400 GiB).
func Parse(text string) (Rule, error) {
	text = strings.TrimSpace(text)
	r := Rule{text: text}
	bad := func(format string, args ...any) (Rule, error) {
		return Rule{}, fmt.Errorf("disk rule %q: %s; use %s", text, fmt.Sprintf(format, args...), Syntax)
	}
	if len(text) > maxRule || strings.ContainsFunc(text, func(c rune) bool { return c < 0x20 || c > 0x7e }) {
		return bad("more than %d characters, or not plain ASCII", maxRule)
	}
	if !strings.Contains(text, "=") {
		r.id = text
		return r, nil
	}
	seen := map[string]bool{}
	terms := strings.Split(text, ",")
	if len(terms) > maxTerms {
		return bad("%d terms", len(terms))
	}
	for _, term := range terms {
		key, val, ok := strings.Cut(term, "=")
		key, val = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(val)
		if !ok || val == "" {
			return bad("%q is no KEY=VALUE", strings.TrimSpace(term))
		}
		if seen[key] {
			return bad("%s stands twice", key)
		}
		seen[key] = true
		if err := r.term(key, val); err != nil {
			return bad("%v", err)
		}
	}
	return r, nil
}

func (r *Rule) term(key, val string) error {
	switch key {
	case "serial":
		r.serial = val
	case "wwn":
		r.wwn = val
	case "model":
		r.model = val
	case "bus":
		for b := range strings.SplitSeq(strings.ToLower(val), "|") {
			if b == "usb" || b == "firewire" {
				return fmt.Errorf("disks on %s are never written", b)
			}
			if !slices.Contains(buses, b) {
				return fmt.Errorf("bus %q is unknown", b)
			}
			r.buses = append(r.buses, b)
		}
	case "size":
		return r.size(val)
	default:
		return fmt.Errorf("%q is unknown", key)
	}
	return nil
}

// size reads MIN..MAX, of which one may be missing.
func (r *Rule) size(val string) error {
	lo, hi, ok := strings.Cut(val, "..")
	if !ok || lo == "" && hi == "" {
		return fmt.Errorf("size %q is no range: say 400G..600G, 400G.. or ..600G", val)
	}
	var err error
	if lo != "" {
		if r.minB, err = units.ParseSize(lo); err != nil {
			return err
		}
	}
	if hi != "" {
		if r.maxB, err = units.ParseSize(hi); err != nil {
			return err
		}
		if r.maxB <= 0 || r.maxB < r.minB {
			return fmt.Errorf("size %q allows nothing", val)
		}
	}
	return nil
}

// Match reports whether the rule means this disk.
func (r Rule) Match(d api.Disk) bool {
	same := func(want, have string) bool { return strings.EqualFold(want, strings.TrimSpace(have)) }
	maxB := r.maxB
	if maxB == 0 {
		maxB = math.MaxInt64
	}
	return (r.id == "" || same(r.id, d.Serial) || sameWWN(r.id, d.WWN)) &&
		(r.serial == "" || same(r.serial, d.Serial)) && (r.wwn == "" || sameWWN(r.wwn, d.WWN)) &&
		(r.model == "" || glob(strings.ToLower(r.model), strings.ToLower(strings.TrimSpace(d.Model)))) &&
		(len(r.buses) == 0 || slices.Contains(r.buses, d.Bus)) &&
		d.Bytes >= r.minB && d.Bytes <= maxB
}

// sameWWN takes 0x, naa. and eui. before the number as decoration, as tools print it.
func sameWWN(want, have string) bool {
	bare := func(s string) string {
		s = strings.ToLower(strings.TrimSpace(s))
		for _, p := range []string{"0x", "naa.", "eui.", "uuid.", "wwn-0x"} {
			s = strings.TrimPrefix(s, p)
		}
		return s
	}
	return bare(have) != "" && bare(want) == bare(have)
}

// glob matches * (any text) and ? (one character); everything else means itself.
func glob(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func matchAll(rules []Rule, d api.Disk) bool {
	return !slices.ContainsFunc(rules, func(r Rule) bool { return !r.Match(d) })
}

// ruleText names the rules that are not empty.
func ruleText(rules []Rule) string {
	var out []string
	for _, r := range rules {
		if !r.Zero() {
			out = append(out, fmt.Sprintf("%q", r.text))
		}
	}
	if len(out) == 0 {
		return "the image"
	}
	return "the disk rule " + strings.Join(out, " of the host together with that of the job, ")
}

func among(rules []Rule) string {
	if slices.ContainsFunc(rules, func(r Rule) bool { return !r.Zero() }) {
		return " the image and " + ruleText(rules)
	}
	return ""
}
