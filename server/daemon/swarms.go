package daemon

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/daemon/control"
	"labswarm/server/daemon/relays"
	"labswarm/server/seeder"
	"labswarm/swarm/peer"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// swarms is control.Swarms and relays.Swarms on the tracker and the seeder.
type swarms struct {
	lib      *library.Library
	seeder   *seeder.Seeder
	track    *tracker.Tracker
	addr     netip.AddrPort // of the seed, as hosts reach it
	mbps     func() int     // what the seed can send now, Mb/s, 0 = unknown
	roomMbps map[string]int // caps of rooms
	log      *slog.Logger
	suspect  func(name, version, why string, cells ...int64) // told of damaged cells; nil = nobody

	mu     sync.Mutex // of what follows, and while a version begins or ends to be served
	served map[[20]byte]*served
	relays map[[20]byte][]registry.Seed // who holds a version besides
}

// served is a version that the seeder has open, and for whom.
type served struct {
	spec tracker.SwarmSpec // with the server's own seed only
	job  bool              // a live job deploys it: it has a plan
	lent bool              // a relay fetches it
}

// source is seeder.Source on one opened image version.
type source struct {
	*library.Version
	log     *slog.Logger
	suspect func(name, version, why string, cells ...int64)
}

func (v source) Pieces() int             { return v.Manifest().Pieces() }
func (v source) PieceLen() int64         { return v.Manifest().Cell }
func (v source) Hash(piece int) [20]byte { return v.Torrent().Hashes[piece] }

var (
	_ peer.FrameSource = source{}
	_ peer.FileSource  = source{}
)

// File implements peer.FileSource.
func (v source) File(piece int) (*os.File, int64, bool) { return v.Raw(piece) }

// ReadPiece implements seeder.Source. A damaged cell is refused, and the version goes into quarantine.
func (v source) ReadPiece(piece int, buf []byte) error {
	err := v.Version.ReadPiece(piece, buf)
	var bad *library.BadCellError
	if errors.As(err, &bad) && v.suspect != nil {
		v.suspect(v.Name(), v.Version.Version(), fmt.Sprintf("cell %d is damaged in the store", bad.Cell), bad.Cell)
	}
	return err
}

// Frame implements peer.FrameSource.
func (v source) Frame(piece int, buf []byte) ([]byte, bool) {
	b, ok, err := v.Version.Frame(piece, buf)
	if err != nil {
		v.log.Error("compressed cell is damaged", "image", v.Name()+"/"+v.Manifest().Version, "err", err)
	}
	return b, ok && err == nil
}

// Serve implements control.Swarms.
func (s *swarms) Serve(name, ver string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sv, err := s.open(name, ver)
	if err != nil {
		return err
	}
	sv.job = true
	return s.direct(sv)
}

// Lend implements relays.Swarms: the version is served without a plan.
func (s *swarms) Lend(name, ver string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sv, err := s.open(name, ver)
	if err != nil {
		return err
	}
	sv.lent = true
	return nil
}

// open has a version served; s.mu is held.
func (s *swarms) open(name, ver string) (*served, error) {
	v, err := s.lib.Get(name, ver)
	if err != nil {
		return nil, err
	}
	ih := v.InfoHash()
	if sv := s.served[ih]; sv != nil {
		return sv, v.Close()
	}
	if err := v.FramesErr(); err != nil {
		s.log.Warn("image is sent uncompressed", "image", name+"/"+v.Manifest().Version, "err", err)
	}
	sv := &served{spec: tracker.SwarmSpec{InfoHash: ih, Name: name + "/" + v.Manifest().Version, Pieces: v.Manifest().Pieces(), PieceLen: v.Manifest().Cell,
		Seeds: []registry.Seed{{ID: relays.ServerName, Addr: s.addr}}}}
	if err := s.seeder.Add(source{v, s.log, s.suspect}); err != nil {
		return nil, err
	}
	s.served[ih] = sv
	return sv, nil
}

// direct has the tracker plan a version with all its seeds; s.mu is held.
func (s *swarms) direct(sv *served) error {
	spec := sv.spec
	spec.Seeds = append(slices.Clone(spec.Seeds), s.relays[spec.InfoHash]...)
	spec.Seeds[0].LinkMbps = s.mbps()
	spec.RoomMbps = s.roomMbps
	return s.track.AddSwarm(spec)
}

// leave ends what nobody needs any more; s.mu is held.
func (s *swarms) leave(sv *served) {
	if !sv.job {
		s.track.RemoveSwarm(sv.spec.InfoHash)
	}
	if !sv.job && !sv.lent {
		s.seeder.Remove(sv.spec.InfoHash)
		delete(s.served, sv.spec.InfoHash)
	}
}

// serving tells which versions are open, as name/version, and for whom.
func (s *swarms) serving() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for _, sv := range s.served {
		out[sv.spec.Name] = "it is being served to a job"
		if !sv.job {
			out[sv.spec.Name] = "a relay fetches it"
		}
	}
	return out
}

// SetRelays implements relays.Swarms.
func (s *swarms) SetRelays(text string, seeds []registry.Seed) {
	s.with(text, func(ih [20]byte) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.relays[ih] = seeds
		if len(seeds) == 0 {
			delete(s.relays, ih)
		}
		if sv := s.served[ih]; sv != nil && sv.job {
			return s.direct(sv)
		}
		return nil
	})
}

// Seed implements relays.Swarms.
func (s *swarms) Seed() api.PeerRef {
	return api.PeerRef{HostID: relays.ServerName, Addr: s.addr.String(), Server: true}
}

// infoHash reads 40 hex digits.
func infoHash(text string) ([20]byte, error) {
	var ih [20]byte
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(ih) {
		return ih, fmt.Errorf("read info-hash %q: want 40 hex digits", text)
	}
	return [20]byte(raw), nil
}

// with runs fn for a valid info-hash; another one names no swarm.
func (s *swarms) with(text string, fn func(ih [20]byte) error) {
	ih, err := infoHash(text)
	if err == nil {
		err = fn(ih)
	}
	if err != nil {
		s.log.Debug("swarm", "err", err)
	}
}

// Stop implements control.Swarms.
func (s *swarms) Stop(text string) { s.end(text, func(sv *served) { sv.job = false }) }

// Return implements relays.Swarms.
func (s *swarms) Return(text string) { s.end(text, func(sv *served) { sv.lent = false }) }

func (s *swarms) end(text string, drop func(*served)) {
	s.with(text, func(ih [20]byte) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if sv := s.served[ih]; sv != nil {
			drop(sv)
			s.leave(sv)
		}
		return nil
	})
}

// Report implements control.Swarms.
func (s *swarms) Report(text string, r control.HostReport) {
	s.with(text, func(ih [20]byte) error {
		return s.track.Update(ih, tracker.HostReport{
			HostID: r.Host, Addr: r.Addr, Room: r.Room, Have: r.Have, Front: r.Front, Done: r.Done, RateBps: r.RateBps,
			Parent: r.Parent, ParentSlow: r.ParentSlow, Accused: r.Accused, LinkMbps: r.LinkMbps, Brake: r.Brake, Waiting: r.Waiting,
		})
	})
}

// Expect implements control.Swarms.
func (s *swarms) Expect(text string, n int) {
	s.with(text, func(ih [20]byte) error { s.track.Expect(ih, n); return nil })
}

// Leave implements control.Swarms.
func (s *swarms) Leave(text, host string) {
	s.with(text, func(ih [20]byte) error {
		s.track.Leave(ih, host)
		s.seeder.Expel(ih, host)
		return nil
	})
}

// Assignment implements control.Swarms.
func (s *swarms) Assignment(text, host string) (a api.Assignment, ok bool) {
	s.with(text, func(ih [20]byte) error { a, ok = s.track.Assignment(ih, host); return nil })
	return a, ok
}

// Subscribe implements control.Swarms.
func (s *swarms) Subscribe(text, host string) (<-chan api.Assignment, func()) {
	ih, err := infoHash(text)
	if err != nil {
		ch := make(chan api.Assignment)
		close(ch)
		return ch, func() {}
	}
	return s.track.Subscribe(ih, host)
}

// Sent implements control.Swarms.
func (s *swarms) Sent(text string) (image, wire int64) {
	s.with(text, func(ih [20]byte) error { image, wire = s.seeder.Sent(ih); return nil })
	return image, wire
}

var (
	_ control.Swarms = (*swarms)(nil)
	_ relays.Swarms  = (*swarms)(nil)
)
