package supervise

import (
	"context"
	"errors"
	"testing"
)

func TestRunRestartsAfterPanics(t *testing.T) {
	end := errors.New("end")
	for _, tt := range []struct {
		name           string
		panics, limit  int
		calls, crashes int
		wantPanic      bool
	}{
		{"no panic", 0, 3, 1, 0, false},
		{"two panics, then well", 2, 3, 3, 2, false},
		{"always", 99, 3, 4, 4, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls, crashes := 0, 0
			err := Run(t.Context(), tt.limit, func(context.Context) error {
				calls++
				if calls <= tt.panics {
					panic("boom")
				}
				return end
			}, func(p *PanicError) {
				crashes++
				if p.Stack == "" {
					t.Error("no stack")
				}
			})
			var p *PanicError
			if calls != tt.calls || crashes != tt.crashes || errors.As(err, &p) != tt.wantPanic {
				t.Errorf("%d calls, %d crashes, %v; want %d, %d, panic %v", calls, crashes, err, tt.calls, tt.crashes, tt.wantPanic)
			}
		})
	}
}
