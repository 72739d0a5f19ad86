package personalise

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// AnswerFiles are where Windows Setup looks for its answer file on the system's own disk, as folder names.
var AnswerFiles = [][]string{
	{"Windows", "Panther", "Unattend", "unattend.xml"},
	{"Windows", "Panther", "unattend.xml"},
	{"Windows", "System32", "Sysprep", "unattend.xml"},
}

// MaxAnswerFile is the longest answer file that is changed, in bytes: usual ones have some KiB.
const MaxAnswerFile = 1 << 20

var (
	windowsRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,13}[A-Za-z0-9])?$`)
	digitsRule  = regexp.MustCompile(`^[0-9]+$`)
)

// CheckWindowsName refuses what Windows does not take as a computer name.
func CheckWindowsName(name string) error {
	if !windowsRule.MatchString(name) || digitsRule.MatchString(name) {
		return fmt.Errorf("host name %q: Windows takes 1 to 15 letters, digits and hyphens, not all of them digits", name)
	}
	return nil
}

// Unattend puts a name into each ComputerName of an answer file's specialize pass. The result has the same length: what
// the name is shorter than the old one becomes spaces behind the element, what it is longer is taken from white space
// between elements. found tells whether there is such an element at all.
func Unattend(content []byte, name string) (out []byte, found bool, err error) {
	text, encode, err := decodeXML(content)
	if err != nil {
		return nil, false, err
	}
	for range maxNames {
		names, gaps, err := computerNames(text)
		if err != nil {
			return nil, false, err
		}
		if len(names) == 0 {
			return content, false, nil
		}
		if err := CheckWindowsName(name); err != nil {
			return nil, true, err
		}
		i := 0
		for i < len(names) && text[names[i].from:names[i].to] == name {
			i++
		}
		if i < len(names) {
			if text, err = putName(text, name, names[i], gaps); err != nil {
				return nil, true, err
			}
			continue
		}
		out = encode(text)
		if len(out) != len(content) {
			return nil, true, fmt.Errorf("%d bytes became %d", len(content), len(out))
		}
		return out, true, nil
	}
	return nil, true, fmt.Errorf("more than %d ComputerName elements", maxNames-1)
}

const maxNames = 17 // one more than elements that are changed; usual are one or two (amd64, x86)

// spot is a range of a text: of an element's content, with the end of the element behind it, or of white space.
type spot struct{ from, to, end int }

// putName replaces one name. The text keeps its length.
func putName(text, name string, at spot, gaps []spot) (string, error) {
	more := len(name) - (at.to - at.from)
	if more <= 0 {
		return text[:at.from] + name + text[at.to:at.end] + strings.Repeat(" ", -more) + text[at.end:], nil
	}
	// From the nearest white space behind the element on, and only then from before it.
	order := make([]spot, 0, len(gaps))
	for _, g := range gaps {
		if g.from >= at.end {
			order = append(order, g)
		}
	}
	for i := len(gaps) - 1; i >= 0; i-- {
		if gaps[i].to <= at.from {
			order = append(order, gaps[i])
		}
	}
	cut := map[int]int{} // from each gap's end, bytes
	for _, g := range order {
		n := min(more, g.to-g.from)
		cut[g.to], more = n, more-n
		if more == 0 {
			break
		}
	}
	if more > 0 {
		return "", fmt.Errorf("the answer file has no room for the name %s: %d characters are missing; write a ComputerName of 15 characters, such as LABSWARM-NAME-X, into it", name, more)
	}
	var b strings.Builder
	last, done := 0, false
	put := func() {
		b.WriteString(text[last:at.from] + name)
		last, done = at.to, true
	}
	for _, g := range gaps {
		if !done && g.from >= at.to {
			put()
		}
		b.WriteString(text[last : g.to-cut[g.to]])
		last = g.to
	}
	if !done {
		put()
	}
	return b.String() + text[last:], nil
}

// computerNames finds the ComputerName elements of the specialize pass, and the white space behind end tags and before start
// tags, which means nothing and may go.
func computerNames(text string) (names, gaps []spot, err error) {
	dec := xml.NewDecoder(strings.NewReader(text))
	dec.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // it is UTF-8 by now, whatever it says
	var path []string
	var open spot
	var between *spot // white space that goes for nothing if an element begins behind it
	afterEnd := false
	for {
		from := int(dec.InputOffset())
		tok, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("the answer file is no XML: %w", err)
		}
		to := int(dec.InputOffset())
		if _, start := tok.(xml.StartElement); start && between != nil {
			gaps = append(gaps, *between)
		}
		between = nil
		switch t := tok.(type) {
		case xml.StartElement:
			if path = append(path, element(t)); len(path) > 64 {
				return nil, nil, errors.New("the answer file's elements are nested too deeply")
			}
			if isName(path) {
				open = spot{from: to}
			}
		case xml.EndElement:
			if len(path) == 0 || strings.SplitN(path[len(path)-1], " ", 2)[0] != t.Name.Local {
				return nil, nil, fmt.Errorf("the answer file is no XML: </%.40s> ends nothing", t.Name.Local)
			}
			if isName(path) {
				if open.to, open.end = from, to; from == to || strings.ContainsAny(text[open.from:open.to], "<&") {
					return nil, nil, errors.New("the answer file's ComputerName is <ComputerName/> or holds more than a name: write a placeholder such as LABSWARM-NAME-X into it")
				}
				names = append(names, open)
			}
			path = path[:len(path)-1]
		case xml.CharData:
			if strings.Trim(text[from:to], " \t\r\n") != "" {
				break
			}
			if g := (spot{from: from, to: to}); afterEnd {
				gaps = append(gaps, g)
			} else if len(path) > 0 {
				between = &g
			}
		}
		_, afterEnd = tok.(xml.EndElement)
	}
	if len(path) != 0 {
		return nil, nil, fmt.Errorf("the answer file is no XML: <%.40s> has no end", path[len(path)-1])
	}
	return names, gaps, nil
}

// element names an element in a path: its name, and what tells passes and components apart.
func element(t xml.StartElement) string {
	want := map[string]string{"settings": "pass", "component": "name"}[t.Name.Local]
	for _, a := range t.Attr {
		if want != "" && a.Name.Local == want && a.Name.Space == "" {
			return t.Name.Local + " " + strings.ToLower(a.Value)
		}
	}
	return t.Name.Local
}

func isName(path []string) bool {
	return len(path) == 4 && path[0] == "unattend" && path[1] == "settings specialize" && path[2] == "component microsoft-windows-shell-setup" && path[3] == "ComputerName"
}

// decodeXML returns a file's text, and how to make a file of a text again: UTF-8, or UTF-16 in either order, as its first
// bytes say (XML 1.0, appendix F).
func decodeXML(b []byte) (text string, encode func(string) []byte, err error) {
	var order binary.AppendByteOrder
	var plain interface{ Uint16([]byte) uint16 }
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{'<', 0}):
		order, plain = binary.LittleEndian, binary.LittleEndian
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}), bytes.HasPrefix(b, []byte{0, '<'}):
		order, plain = binary.BigEndian, binary.BigEndian
	default:
		bom := []byte{0xef, 0xbb, 0xbf}
		if !bytes.HasPrefix(b, bom) {
			bom = nil
		}
		if b = b[len(bom):]; !utf8.Valid(b) {
			return "", nil, errors.New("the answer file is neither UTF-8 nor UTF-16")
		}
		return string(b), func(s string) []byte { return append(bytes.Clone(bom), s...) }, nil
	}
	mark := b[:0]
	if b[0] != '<' && b[1] != '<' {
		mark, b = b[:2], b[2:]
	}
	if len(b)%2 != 0 {
		return "", nil, errors.New("the answer file is UTF-16 of an odd number of bytes")
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = plain.Uint16(b[2*i:])
	}
	encode = func(s string) []byte {
		out := bytes.Clone(mark)
		for _, u := range utf16.Encode([]rune(s)) {
			out = order.AppendUint16(out, u)
		}
		return out
	}
	text = string(utf16.Decode(units))
	if !bytes.Equal(encode(text), append(bytes.Clone(mark), b...)) {
		return "", nil, errors.New("the answer file is damaged UTF-16")
	}
	return text, encode, nil
}
