package screen

import (
	"strings"
	"testing"
)

func TestEnrolPage(t *testing.T) {
	v := View{EnrolCode: "407916", MAC: "52:54:00:00:00:01", Serial: "PF1ABC", Version: "v", Server: "10.0.0.1"}
	page := strings.Join(v.Page(VGA), "\n")
	for _, w := range []string{"host enrol 407916 --room", "52:54:00:00:00:01", "PF1ABC", "not touched", "##"} {
		if !strings.Contains(page, w) {
			t.Errorf("the page lacks %q:\n%s", w, page)
		}
	}
	for _, l := range v.Page(VGA) {
		if len(l) > 79 {
			t.Errorf("%d columns: %q", len(l), l)
		}
	}
	if n := len(v.Page(VGA)); n > 25 {
		t.Errorf("%d lines", n)
	}
	if !strings.Contains(v.Line(), "ENROL CODE 407916") {
		t.Errorf("line: %s", v.Line())
	}
	v = View{Bound: true, Host: "A101-07", Room: "A101", Seat: "07"}
	if p := strings.Join(v.Page(VGA), "\n"); !strings.Contains(p, "This PC is A101-07 now, on seat 07 of room A101.") || !strings.Contains(v.Line(), "seat 07") {
		t.Errorf("bound:\n%s\n%s", p, v.Line())
	}
	v.Problem = "it went wrong" // a problem takes the whole screen
	if !strings.Contains(v.Line(), "PROBLEM") {
		t.Error(v.Line())
	}
}
