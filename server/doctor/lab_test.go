package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"

	"labswarm/api"
)

func TestLab(t *testing.T) {
	worst(t, "nothing to do", api.CheckOK, judgeLab(Lab{Schedules: 3})...)
	worst(t, "questions", api.CheckWarn, judgeLab(Lab{Questions: 2})...)
	worst(t, "a schedule that will fail", api.CheckFail, judgeLab(Lab{Schedules: 1, Faults: []string{"schedule n will fail: no image"}})...)
	got := judgeLab(Lab{Quarantined: strings.Fields("a b c d e f g h i j k l")})
	worst(t, "quarantine", api.CheckWarn, got...)
	if text := got[1].Text; !strings.Contains(text, "12 PCs") || !strings.HasSuffix(text, "j and 2 more") {
		t.Errorf("quarantine: %s", text)
	}
	worst(t, "no state", api.CheckFail, checkLab(t.Context(), &Config{Lab: func(context.Context) (Lab, error) { return Lab{}, errors.New("disk") }})...)
	if got := checkLab(t.Context(), &Config{}); got != nil {
		t.Errorf("without a server: %+v", got)
	}
}
