package peer

import (
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"

	"labswarm/swarm/wire"
)

// filedStore is a fileStore whose pieces may be taken from its file, but for
// every tenth; it counts those that are asked for the other way.
type filedStore struct {
	*fileStore
	f    *os.File // nil: of the fileStore
	read atomic.Int32
}

func (s *filedStore) File(i int) (*os.File, int64, bool) {
	f := s.f
	if f == nil {
		f = s.fileStore.f
	}
	return f, int64(i * s.tr.pieceLen), i%10 != 9
}

func (s *filedStore) ReadPiece(i int, buf []byte) error {
	s.read.Add(1)
	return s.fileStore.ReadPiece(i, buf)
}

// TestFromFile: pieces go from their file into the socket, with TLS through a
// buffer, and what arrives is exact.
func TestFromFile(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 100, testPiece)
	r := newRoster(t, tr, "s")
	for name, mod := range map[string]func(c *Config, host string){
		"sendfile": func(*Config, string) {},
		"TLS": func(c *Config, host string) {
			if c.Seed {
				r.seed(c)
			} else {
				r.host(host)(c)
			}
		},
		"rate cap": func(c *Config, _ string) { c.Limiter = rate.NewLimiter(1<<30, wire.MaxBlock) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := &filedStore{fileStore: newStore(t, tr, nil)}
			seed := start(t, "seed", tr, st.fileStore, func(c *Config) {
				c.Seed, c.Storage = true, st
				mod(c, "seed")
			})
			a := start(t, "a", tr, newStore(t, tr, []int{}), func(c *Config) { mod(c, "a") })
			b := start(t, "b", tr, newStore(t, tr, []int{}), func(c *Config) { mod(c, "b") })
			a.from(seed)
			b.from(seed) // at the same time from the same file
			for _, h := range []*member{a, b} {
				h.wait()
				h.store.check()
				if s := h.Stats(); s.BytesFromServer != int64(len(tr.data)) || s.HashFailures != 0 {
					t.Errorf("%s: %+v; want every byte once", h.name, s)
				}
			}
			if n := st.read.Load(); n < 10 || n > 20 {
				t.Errorf("%d pieces were not taken from the file; want each of the ten that cannot be, for two hosts at most", n)
			}
			until(t, "the bytes are counted", func() bool { return seed.Stats().BytesUploaded == 2*int64(len(tr.data)) })
		})
	}
}

// TestRottenFile: a file that is wrong or too short is not sent; the piece comes
// the other way.
func TestRottenFile(t *testing.T) {
	t.Parallel()
	tr := newTorrent(t, 20, testPiece)
	st := &filedStore{fileStore: newStore(t, tr, nil)}
	rotten := newStore(t, tr, nil)
	if _, err := rotten.f.WriteAt([]byte{1, 2, 3}, int64(3*testPiece+5000)); err != nil {
		t.Fatal(err)
	}
	if err := rotten.f.Truncate(int64(15*testPiece + 100)); err != nil {
		t.Fatal(err)
	}
	st.f = rotten.f
	seed := start(t, "seed", tr, st.fileStore, func(c *Config) { c.Seed, c.Storage = true, st })
	h := start(t, "h", tr, newStore(t, tr, []int{}), nil)
	h.from(seed)
	h.wait()
	h.store.check()
	if s := h.Stats(); s.HashFailures != 0 {
		t.Errorf("%d wrong pieces were sent", s.HashFailures)
	}
	if n := st.read.Load(); n < 1+1+5 { // 3; 9; 15 to 19
		t.Errorf("%d pieces came the other way; want all that are wrong in the file", n)
	}
}
