package personalise

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"
)

// answer is an answer file as Windows SIM writes it, with one name per component.
func answer(head, eol string, names ...string) string {
	var b strings.Builder
	b.WriteString(head + `<unattend xmlns="urn:schemas-microsoft-com:unattend">` + eol + `  <settings pass="oobeSystem">` + eol +
		`    <component name="Microsoft-Windows-Shell-Setup"><ComputerName>NOT-THIS</ComputerName></component>` + eol + `  </settings>` + eol +
		`  <!-- <ComputerName>NOR-THIS</ComputerName> -->` + eol + `  <settings pass="specialize">` + eol)
	for _, n := range names {
		b.WriteString(`    <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64" language="neutral">` + eol +
			`      <RegisteredOwner>Schüler 𝄞 &amp; Lehrer</RegisteredOwner>` + eol + n + `<TimeZone>x</TimeZone></component>` + eol)
	}
	return b.String() + `  </settings>` + eol + `</unattend>` + eol
}

func element1(name string) string { return "<ComputerName>" + name + "</ComputerName>" }

func utf16File(text string, order binary.AppendByteOrder, mark bool) []byte {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// forms are a text as the files that may hold it.
func forms(text string) map[string][]byte {
	return map[string][]byte{"UTF-8": []byte(text), "UTF-8 with mark": append([]byte{0xef, 0xbb, 0xbf}, text...),
		"UTF-16LE": utf16File(text, binary.LittleEndian, true), "UTF-16BE": utf16File(text, binary.BigEndian, true),
		"UTF-16LE without mark": utf16File(text, binary.LittleEndian, false), "UTF-16BE without mark": utf16File(text, binary.BigEndian, false)}
}

// meaning is an XML text without white space between elements.
func meaning(t interface{ Fatal(...any) }, text string) string {
	var out strings.Builder
	dec := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	dec.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	for {
		tok, err := dec.Token()
		if err == io.EOF { //nolint:errorlint // as it comes
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		switch x := tok.(type) {
		case xml.StartElement:
			out.WriteString("<" + x.Name.Local + ">")
		case xml.EndElement:
			out.WriteString("</" + x.Name.Local + ">")
		case xml.CharData:
			if s := strings.TrimSpace(string(x)); s != "" {
				out.WriteString(s)
			}
		}
	}
}

func TestUnattend(t *testing.T) {
	const head = `<?xml version="1.0" encoding="utf-8"?>` + "\n"
	const head16 = `<?xml version="1.0" encoding="utf-16"?>` + "\r\n"
	for _, tt := range []struct{ name, text, host, err string }{
		{"placeholder", answer(head, "\n", element1("LABSWARM-NAME-X")), "pc07", ""},
		{"placeholder, longest name", answer(head, "\r\n", element1("LABSWARM-NAME-X")), "A101-PLATZ-0123", ""},
		{"star", answer(head16, "\r\n", element1("*")), "A101-PLATZ-0123", ""},
		{"empty", answer("", "\n", element1("")), "pc07", ""},
		{"same", answer("", "\n", element1("pc07")), "pc07", ""},
		{"white space in it", answer(head, "\n", "<ComputerName >\n  OLD\t</ComputerName\n>"), "pc07", ""},
		{"two architectures", answer(head, "\r\n", element1("*"), element1("LABSWARM-NAME-X")), "A101-PLATZ-0123", ""},
		{"no white space, placeholder", answer("", "", element1("LABSWARM-NAME-X")), "A101-PLATZ-0123", ""},
		{"no room", strings.ReplaceAll(answer("", "", element1("*")), "  ", ""), "A101-PLATZ-0123", "no room"},
		{"closed at once", answer("", "\n", "<ComputerName/>"), "pc07", "<ComputerName/>"},
		{"comment inside", answer("", "\n", "<ComputerName><!-- x -->a</ComputerName>"), "pc07", "more than a name"},
		{"element inside", answer("", "\n", "<ComputerName><a/></ComputerName>"), "pc07", "more than a name"},
		{"long name", answer("", "\n", element1("LABSWARM-NAME-X")), "a101-platz-01234", "1 to 15"},
		{"digits", answer("", "\n", element1("LABSWARM-NAME-X")), "12345", "not all of them digits"},
		{"no element", answer("", "\n"), "12345", "absent"},
		{"not XML", "<unattend><a></unattend>", "pc07", "no XML"},
		{"cut off", "<unattend>", "pc07", "has no end"},
		{"Latin-1", "<unattend>\xe4</unattend>", "pc07", "neither UTF-8"},
	} {
		all := map[string][]byte{"as it is": []byte(tt.text)}
		if tt.err == "" {
			all = forms(tt.text)
		}
		for form, file := range all {
			out, found, err := Unattend(file, tt.host)
			switch {
			case tt.err == "absent":
				if found || err != nil || !bytes.Equal(out, file) {
					t.Errorf("%s: found %v, %v", tt.name, found, err)
				}
				continue
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
				}
				continue
			case err != nil || !found || len(out) != len(file):
				t.Fatalf("%s, %s: %d bytes of %d, %v, %v", tt.name, form, len(out), len(file), found, err)
			}
			was, _, err := decodeXML(file)
			if err != nil {
				t.Fatal(err)
			}
			is, _, err := decodeXML(out)
			if err != nil {
				t.Fatal(err)
			}
			names, _, err := computerNames(was)
			if err != nil {
				t.Fatal(err)
			}
			for i := len(names) - 1; i >= 0; i-- {
				was = was[:names[i].from] + tt.host + was[names[i].to:]
			}
			if meaning(t, is) != meaning(t, was) || !strings.Contains(is, ">"+tt.host+"<") {
				t.Errorf("%s, %s:\n%s\nwant, but for white space:\n%s", tt.name, form, is, was)
			}
			again, _, err := Unattend(out, tt.host)
			if err != nil || !bytes.Equal(again, out) {
				t.Errorf("%s, %s: a second time changes it (%v)", tt.name, form, err)
			}
		}
	}
}

// TestUnattendProperties: with room, every name goes in, whatever was there before, and comes out again.
func TestUnattendProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,13}[A-Za-z0-9]`).Draw(t, "name")
		old := rapid.StringMatching(`[A-Za-z0-9* -]{0,20}`).Draw(t, "old")
		eol := rapid.SampledFrom([]string{"\n", "\r\n", "\n\t\t"}).Draw(t, "eol")
		text := answer("", eol, element1(old), element1("*"))
		files := forms(text)
		file := files[rapid.SampledFrom([]string{"UTF-8", "UTF-16LE", "UTF-16BE"}).Draw(t, "form")]
		out, found, err := Unattend(file, name)
		if err != nil || !found || len(out) != len(file) {
			t.Fatalf("%d bytes of %d, %v, %v", len(out), len(file), found, err)
		}
		is, _, err := decodeXML(out)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(strings.Replace(meaning(t, text), element1("*"), element1(name), 1), element1(strings.TrimSpace(old))+"<T", element1(name)+"<T")
		if got := meaning(t, is); got != want && old != "NOT-THIS" {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	})
}

func FuzzUnattend(f *testing.F) {
	for _, b := range forms(answer("", "\n", element1("*"))) {
		f.Add(b, "PC07")
	}
	f.Add([]byte("<a><b/></a>"), "x")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		if len(b) > 64<<10 {
			return
		}
		out, found, err := Unattend(b, name)
		if err != nil || !found {
			return
		}
		if len(out) != len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(out))
		}
		if again, _, err := Unattend(out, name); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("a second time: %v", err)
		}
	})
}
