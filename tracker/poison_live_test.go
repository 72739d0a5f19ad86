package tracker_test

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"slices"
	"testing"
)

// liar is a host that has everything, sends the given pieces wrong, and does not
// look: its certificate, its reports and its place in the plan are those of any
// other.
func (l *lab) liar(i int, src *ram, wrong func(piece int) bool) *pc {
	p := l.pc(i)
	p.short = 1 // so that it is not let go
	p.l = &lab{t: l.t, tr: l.tr, ih: l.ih}
	copy(p.disk.data, src.data)
	for k := range livePieces {
		p.disk.have[k] = true
		if wrong(k) {
			p.disk.at(k)[4711] ^= 0x20
		}
		p.l.hashes[k] = sha1.Sum(p.disk.at(k))
	}
	return p
}

// TestPoisonedRoom: real nodes and the real tracker. One of four hosts sends one
// piece in a hundred wrong, or five of six send only wrong ones. The others end
// with the right bytes and never held a wrong one; nobody is sent to a liar by
// whom it was lied to; and little is fetched twice.
func TestPoisonedRoom(t *testing.T) {
	for _, tt := range []struct {
		liars, honest int
		wrong         func(int) bool
		most          int // wrong pieces that an honest host may have to fetch again
	}{
		{1, 3, func(i int) bool { return i%100 == 50 }, 4},
		// From each liar what was asked for before its first wrong piece was found so (window.Depth: 1 MiB), and two more.
		{5, 1, func(int) bool { return true }, 5 * (1<<20/livePieceLen + 3)},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.liars, tt.liars+tt.honest), func(t *testing.T) {
			t.Parallel()
			l, src, _ := startLab(t, 64<<20)
			for i := range tt.liars {
				p := l.liar(i, src, tt.wrong)
				p.boot()
				defer p.crash()
			}
			l.until("the liars are in the plan", func() bool { return len(l.tr.Hosts(l.ih)) == tt.liars })
			var honest []*pc
			for i := range tt.honest {
				p := l.pc(tt.liars + i)
				p.disk.check = func(i int, b []byte) {
					if sha1.Sum(b) != l.hashes[i] {
						t.Errorf("%s: piece %d reached the disk with wrong bytes", p.id, i)
					}
				}
				p.boot()
				defer p.crash()
				honest = append(honest, p)
			}
			l.until("the honest are done", func() bool {
				return !slices.ContainsFunc(honest, func(p *pc) bool { return p.have() < livePieces })
			})
			wrong := 0
			for _, p := range honest {
				s := p.node.Stats()
				if wrong += s.HashFailures; s.HashFailures > tt.most {
					t.Errorf("%s had %d wrong pieces; want %d at most", p.id, s.HashFailures, tt.most)
				}
				if !bytes.Equal(p.disk.data, src.data) {
					t.Errorf("disk of %s differs from the source", p.id)
				}
				if got, most := s.BytesFromPeers+s.BytesFromServer, int64(livePieces+tt.most+8)*livePieceLen; got > most {
					t.Errorf("%s fetched %d bytes; want at most %d", p.id, got, most)
				}
			}
			if wrong == 0 {
				t.Error("no wrong piece came: nothing was tested")
			}
			l.judged(tt.liars)
		})
	}
}

// judged checks the last plan: no liar that anybody accused feeds an honest host.
func (l *lab) judged(liars int) {
	bad := map[string]bool{}
	for _, h := range l.tr.Hosts(l.ih)[:liars] {
		if len(h.AccusedBy) > 0 {
			bad[h.ID] = true
		}
	}
	for _, h := range l.tr.Hosts(l.ih)[liars:] {
		a, ok := l.tr.Assignment(l.ih, h.ID)
		for _, p := range append(a.Fallbacks, a.Parent) {
			if !ok || bad[p.HostID] {
				l.t.Errorf("%s is sent to the liar %s (%v)", h.ID, p.HostID, a)
			}
		}
	}
	if len(bad) == 0 {
		l.t.Error("nobody accuses a liar")
	}
}
