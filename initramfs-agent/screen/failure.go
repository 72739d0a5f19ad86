package screen

import (
	"strings"

	"labswarm/api"
)

// radio is the alphabet of the International Radio Regulations, appendix 14, for
// the characters of a code that is read out.
var radio = map[rune]string{
	'A': "alfa", 'B': "bravo", 'C': "charlie", 'D': "delta", 'E': "echo", 'F': "foxtrot", 'G': "golf", 'H': "hotel", 'I': "india",
	'J': "juliett", 'K': "kilo", 'L': "lima", 'M': "mike", 'N': "november", 'O': "oscar", 'P': "papa", 'Q': "quebec", 'R': "romeo",
	'S': "sierra", 'T': "tango", 'U': "uniform", 'V': "victor", 'W': "whiskey", 'X': "x-ray", 'Y': "yankee", 'Z': "zulu",
	'0': "zero", '1': "one", '2': "two", '3': "three", '4': "four", '5': "five", '6': "six", '7': "seven", '8': "eight", '9': "nine",
}

// spell is a code in words, to be read out on the telephone.
func spell(code string) string {
	var out []string
	for _, c := range code {
		if w := radio[c]; w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, " ")
}

// problemPage is a failure: which PC, what failed in one sentence, what it means,
// what to do, and the code, big and spelled. The agent's own words come last:
// they are for the lab office.
func (v View) problemPage(p *page) {
	w := p.w
	class, _, _ := strings.Cut(v.Code, "-")
	p.blank()
	who := v.Seat
	if who == "" {
		who = v.Host
	}
	if v.Room != "" {
		who = strings.TrimSpace(who + " (" + v.Room + ")")
	}
	p.pair(w.problem+"   "+label(w.seat, who), label(w.code, v.Code))
	p.blank()
	p.banner(v.Code, "")
	p.text(spell(v.Code))
	p.blank()
	p.text(w.fail(class))
	p.text(v.advice(w))
	switch class {
	case api.CodeNoLink, api.CodeNoAddress:
		p.text(w.cable)
	default:
		p.text(w.tell)
	}
	p.text(w.others)
	p.blank()
	p.text(w.detail(v.Detail))
	v.facts(p)
	p.blank()
	p.text(v.Problem)
}
