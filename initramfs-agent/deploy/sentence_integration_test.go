//go:build integration

package deploy

import (
	"strings"
	"sync"
	"testing"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/agenttest"
)

// TestTheSentenceFollowsTheCommence: until the server has committed the commence
// the screen allows to switch off, whatever the percent; from the first cell on
// it forbids it; in the end it says that all is done.
func TestTheSentenceFollowsTheCommence(t *testing.T) {
	s := agenttest.NewServer(t, agenttest.New(t, agenttest.Options{Cells: 32}))
	l := agenttest.NewLoop(t, noise(int64(len(s.Image.Raw))))
	cfg := config(t, s, loops(l.Name))
	s.Enrol = func(api.EnrolRequest) api.EnrolReply {
		return api.EnrolReply{Status: api.EnrolOK, Host: "a01", Room: "A", Seat: "12", Language: "it", Job: 7, Image: "test/1"}
	}
	s.Commence = func(n int, _ *order.Commence) *api.Problem {
		if v := cfg.Screen.View(); v.Committed || !strings.Contains(v.Advice(), "Si puo' spegnere") {
			t.Errorf("commence %d is asked for and the screen says %q", n, v.Advice())
		}
		if n == 1 {
			return &api.Problem{Status: 409, Code: api.CodeNotNow, Detail: "another host goes first"}
		}
		return nil
	}
	var once sync.Once
	s.Read = func(int) {
		once.Do(func() {
			if v := cfg.Screen.View(); !strings.Contains(v.Advice(), "NON SPEGNERE") || v.Verified {
				t.Errorf("the first cell is sent and the screen says %q", v.Advice())
			}
		})
	}
	out, err := Run(t.Context(), cfg)
	proven(t, s, l, out, err)
	if v := cfg.Screen.View(); !strings.Contains(v.Advice(), "Finito") || v.Seat != "12" || v.Room != "A" {
		t.Errorf("at the end: %q, seat %q of room %q", v.Advice(), v.Seat, v.Room)
	}
}
