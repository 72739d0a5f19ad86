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
		{"failed when proven", View{Problem: "x", Committed: true, Verified: true}, "new system is on the disk"},
		{"only read", View{State: api.StateCapturing, Capture: true}, "only read"},
	} {
		if !strings.Contains(tt.v.Advice(), tt.want) {
			t.Errorf("%s: %q; want %q", tt.name, tt.v.Advice(), tt.want)
		}
		if !strings.Contains(strings.Join(tt.v.Page(VGA), "\n"), tt.want) {
			t.Errorf("%s: the page does not say %q", tt.name, tt.want)
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
