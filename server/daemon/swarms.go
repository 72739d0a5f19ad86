package daemon

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/daemon/control"
	"labswarm/server/seeder"
	"labswarm/swarm/peer"
	"labswarm/tracker"
	"labswarm/tracker/registry"
)

// swarms is control.Swarms on the tracker and the seeder.
type swarms struct {
	lib    *library.Library
	seeder *seeder.Seeder
	track  *tracker.Tracker
	addr   netip.AddrPort // of the seed, as hosts reach it
	log    *slog.Logger
}

// source is seeder.Source on one opened image version.
type source struct {
	*library.Version
	log *slog.Logger
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
	v, err := s.lib.Get(name, ver)
	if err != nil {
		return err
	}
	if err := v.FramesErr(); err != nil {
		s.log.Warn("image is sent uncompressed", "image", name+"/"+v.Manifest().Version, "err", err)
	}
	ih, pieces := v.InfoHash(), v.Manifest().Pieces()
	if s.seeder.Has(ih) {
		err = v.Close()
	} else {
		err = s.seeder.Add(source{v, s.log})
	}
	if err != nil {
		return err
	}
	return s.track.AddSwarm(tracker.SwarmSpec{InfoHash: ih, Name: name + "/" + v.Manifest().Version, Pieces: pieces,
		Seeds: []registry.Seed{{ID: "server", Addr: s.addr}}})
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
func (s *swarms) Stop(text string) {
	s.with(text, func(ih [20]byte) error {
		s.track.RemoveSwarm(ih)
		s.seeder.Remove(ih)
		return nil
	})
}

// Report implements control.Swarms.
func (s *swarms) Report(text string, r control.HostReport) {
	s.with(text, func(ih [20]byte) error {
		return s.track.Update(ih, tracker.HostReport{
			HostID: r.Host, Addr: r.Addr, Room: r.Room, Have: r.Have, Front: r.Front, Done: r.Done, RateBps: r.RateBps,
			Parent: r.Parent, ParentSlow: r.ParentSlow, Accused: r.Accused,
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
func (s *swarms) Sent(text string) (n int64) {
	s.with(text, func(ih [20]byte) error { n = s.seeder.Sent(ih); return nil })
	return n
}

var _ control.Swarms = (*swarms)(nil)
