package peer

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestDoubt: a host that clears itself gets wrong pieces from the server again,
// but not for ever; what says that it is broken ends it at once.
func TestDoubt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		heals bool // the server's piece comes right after the first doubt
		err   error
		asked int
		fails int
	}{{"cleared, and right then", true, nil, 1, 4}, {"cleared twice", false, nil, 2, 12}, {"broken", false, errDisk, 1, 4}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := newTorrent(t, 20, testPiece)
			bad := liar(t, tr, func(i int) bool { return i == 5 })
			seed := start(t, "seed", tr, newStore(t, tr, nil), asSeed)
			var h *member
			ready := make(chan struct{})
			asked := 0
			h = start(t, "h", tr, newStore(t, tr, []int{}), func(c *Config) {
				c.Doubt = func(_ context.Context, e *CorruptError) error {
					<-ready
					if asked++; e.Piece != 5 || e.Attempts != 4*asked {
						t.Errorf("asked about %v; want piece 5 after %d copies", e, 4*asked)
					}
					if tt.heals {
						h.from(seed)
					}
					return tt.err
				}
			})
			close(ready)
			h.SetSources(Assignment{Parent: Peer{Addr: bad.addr, ID: "server", Server: true}})
			if tt.heals {
				h.wait()
				h.store.check()
			} else {
				select {
				case <-h.ended:
				case <-time.After(deadline):
					t.Fatal("the node did not stop")
				}
				var ce *CorruptError
				if errors.As(h.err, &ce) == (tt.err != nil) || tt.err != nil && !errors.Is(h.err, tt.err) {
					t.Errorf("Run = %v; want %v, or a CorruptError for nil", h.err, tt.err)
				}
			}
			if s := h.Stats(); asked != tt.asked || s.HashFailures != tt.fails {
				t.Errorf("asked %d times, %d wrong copies; want %d and %d", asked, s.HashFailures, tt.asked, tt.fails)
			}
		})
	}
}
