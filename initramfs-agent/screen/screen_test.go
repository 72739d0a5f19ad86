package screen

import (
	"strings"
	"testing"

	"labswarm/api"
)

func TestAdviceFollowsTheStateNotThePercent(t *testing.T) {
	for _, tt := range []struct {
		name string
		v    View
		want string
	}{
		{"before commence, at 100 %", View{State: api.StateChecking, Done: 9, Total: 9}, "You may switch off"},
		{"after commence, at 0 %", View{State: api.StateWriting, Total: 9, Committed: true}, "DO NOT SWITCH OFF"},
		{"reading back", View{State: api.StateVerifying, Done: 9, Total: 9, Committed: true}, "DO NOT SWITCH OFF"},
		{"proven", View{State: api.StateDone, Committed: true, Verified: true}, "Finished, restarting"},
		{"failed before", View{Problem: "x"}, "Nothing has been changed"},
		{"failed after", View{Problem: "x", Committed: true}, "cannot be used now"},
	} {
		if !strings.Contains(tt.v.Advice(), tt.want) {
			t.Errorf("%s: %q; want %q", tt.name, tt.v.Advice(), tt.want)
		}
		if !strings.Contains(strings.Join(tt.v.Page(), "\n"), tt.want) {
			t.Errorf("%s: the page does not say %q", tt.name, tt.want)
		}
	}
}

func TestPageFitsTheScreen(t *testing.T) {
	long := strings.Repeat("long-word ", 60) + strings.Repeat("x", 300)
	for _, v := range []View{
		{}, {Room: long, Host: long, Image: long, Detail: long, Server: long, Done: 1, Total: 3, RateBps: 1 << 30, State: api.StateWriting, Job: 1 << 60},
		{Problem: long, Code: "DW-4K7P", Host: long, Detail: long},
	} {
		page := v.Page()
		if len(page) > 24 {
			t.Errorf("page has %d lines", len(page))
		}
		for _, l := range page {
			if len(l) >= 80 {
				t.Errorf("line of %d columns: %q", len(l), l)
			}
		}
	}
}

func TestLine(t *testing.T) {
	v := View{Host: "a13", Image: "debian/1", State: api.StateWriting, Done: 50 << 20, Total: 100 << 20, RateBps: 10 << 20, Committed: true}
	for _, want := range []string{"a13", "debian/1", "WRITING", "50%", "10.0 MiB/s", "DO NOT SWITCH OFF"} {
		if !strings.Contains(v.Line(), want) {
			t.Errorf("Line() = %q; want %q in it", v.Line(), want)
		}
	}
}
