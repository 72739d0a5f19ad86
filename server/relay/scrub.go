package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"labswarm/api"
	"labswarm/images/library"
)

const (
	scrubRate  = 100_000_000      // bytes per second read from the disk
	scrubBurst = 4 << 20          // bytes read in one go
	scrubPause = 2 * time.Second  // until it is looked again whether hosts are served
	heavyBps   = 10 << 20         // bytes per second to hosts that are heavy serving, whatever the link
	heavyShare = 10               // and this part of the link is, when it is known
	longSleep  = 10 * time.Minute // between two looks at the clock, which may be set meanwhile
	scrubFile  = "scrub.json"     // in the state folder
)

// errRebuild ends the serving of a copy: compressed cells are damaged, and the
// store of them is made again as a whole.
var errRebuild = errors.New("compressed cells are damaged: their store is made again")

// heavy is from how many bytes per second to hosts on a verification waits.
func heavy(linkMbps int) int64 {
	if linkMbps > 0 {
		return min(heavyBps, int64(linkMbps)*1e6/8/heavyShare)
	}
	return heavyBps
}

// scrubs is what all verifications of a relay share.
type scrubs struct {
	every   time.Duration // 0 = never
	limiter *rate.Limiter
	turn    chan struct{} // one copy at a time
	path    string
	log     *slog.Logger

	mu   sync.Mutex
	last map[string]scrubbed // by manifest digest
}

// scrubbed is what a complete verification found.
type scrubbed struct {
	End     time.Time `json:"end"`
	Damaged int       `json:"damaged"` // cells
	Frames  int       `json:"frames"`  // compressed cells
}

// newScrubs reads what the last verifications found. A file that cannot be read
// costs one verification.
func newScrubs(cfg *Config) *scrubs {
	s := &scrubs{every: cfg.Scrub, limiter: rate.NewLimiter(scrubRate, scrubBurst), turn: make(chan struct{}, 1),
		path: filepath.Join(cfg.StateDir, scrubFile), log: cfg.Log, last: map[string]scrubbed{}}
	raw, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(raw, &s.last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("when copies were verified is not known", "err", err)
	}
	if s.last == nil {
		s.last = map[string]scrubbed{}
	}
	return s
}

// of is what the last complete verification of a copy found; a zero End: there
// was none.
func (s *scrubs) of(digest string) scrubbed { s.mu.Lock(); defer s.mu.Unlock(); return s.last[digest] }

// done keeps what a verification found, and of the others those of the copies
// that are here.
func (s *scrubs) done(digest string, f scrubbed, here map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.last, func(d string, _ scrubbed) bool { return !here[d] })
	s.last[digest] = f
	raw, err := json.Marshal(s.last)
	if err == nil {
		tmp := s.path + ".new"
		if err = os.WriteFile(tmp, raw, 0o600); err == nil {
			err = os.Rename(tmp, s.path)
		}
	}
	if err != nil { // costs a verification after the next start
		s.log.Warn("when copies were verified is not kept", "err", err)
	}
}

// due is when the next verification begins. A last one in the future says that
// the clock was set: it counts for nothing.
func due(last time.Time, every time.Duration, now time.Time) time.Time {
	if last.IsZero() || last.After(now) {
		return now
	}
	return last.Add(every)
}

// scrubPass is one verification of one copy, cell by cell.
type scrubPass struct {
	pieces  int
	look    func(ctx context.Context, piece int) (read int, damaged bool, err error) // bytes read
	sent    func() int64                                                             // bytes sent to hosts, ever
	heavy   int64                                                                    // bytes per second
	limiter *rate.Limiter
	note    func(done int, paused bool)

	at    time.Time // of the last look at sent
	was   int64
	loads bool
}

// run reads every cell. It waits while hosts are served heavily.
func (p *scrubPass) run(ctx context.Context) (damaged int, err error) {
	p.at, p.was = time.Now(), p.sent()
	for i := range p.pieces {
		for p.busy() {
			p.note(i, true)
			if err := sleep(ctx, scrubPause); err != nil {
				return damaged, err
			}
		}
		p.note(i, false)
		n, bad, err := p.look(ctx, i)
		if err != nil {
			return damaged, err
		}
		if bad {
			damaged++
		}
		for ; n > 0; n -= scrubBurst {
			if err := p.limiter.WaitN(ctx, min(n, scrubBurst)); err != nil {
				return damaged, err
			}
		}
	}
	return damaged, nil
}

// busy tells whether hosts are served heavily, by the mean of a second or more.
func (p *scrubPass) busy() bool {
	if d := time.Since(p.at); d >= time.Second {
		now := p.sent()
		p.loads = float64(now-p.was)/d.Seconds() > float64(p.heavy)
		p.at, p.was = time.Now(), now
	}
	return p.loads
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// scrub verifies a copy again and again while it is served. It ends with ctx
// (nil), or with errRebuild.
func (im *image) scrub(ctx context.Context, v *library.Version, st *copied) error {
	s := im.r.scrubs
	for s.every > 0 && ctx.Err() == nil {
		if wait := time.Until(due(s.of(im.want.Digest).End, s.every, time.Now())); wait > 0 {
			_ = sleep(ctx, min(wait, longSleep))
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case s.turn <- struct{}{}:
		}
		err := im.scrubOnce(ctx, v, st)
		<-s.turn
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// scrubOnce is one verification; its result is kept when it was complete.
func (im *image) scrubOnce(ctx context.Context, v *library.Version, st *copied) error {
	start, buf, frame := time.Now(), make([]byte, v.Manifest().Cell), []byte(nil)
	uncache(v.Dir())
	p := scrubPass{pieces: v.Manifest().Pieces(), sent: im.r.sent, heavy: heavy(im.r.cfg.LinkMbps), limiter: im.r.scrubs.limiter,
		note: func(done int, paused bool) { im.scrubbing(&api.RelayScrub{Running: true, Done: done, Paused: paused}) },
		look: func(ctx context.Context, piece int) (int, bool, error) {
			bad := st.ReadPiece(piece, buf) != nil
			if bad {
				if err := st.tell(ctx, piece); err != nil {
					return 0, bad, err
				}
			}
			b, _ := st.Frame(piece, frame)
			frame = b[:0:cap(b)]
			return len(buf) + len(b), bad, nil
		}}
	im.r.cfg.Log.Info("verification of the copy begins", "image", im.id())
	defer im.scrubbing(nil)
	damaged, err := p.run(ctx)
	if err != nil {
		return err
	}
	f := scrubbed{End: time.Now().UTC().Truncate(time.Second), Damaged: damaged, Frames: int(st.badFrames.Load())}
	im.r.scrubs.done(im.want.Digest, f, im.r.digests())
	im.r.cfg.Log.Info("copy is verified", "image", im.id(), "cells", p.pieces, "damaged", f.Damaged, "compressed_damaged", f.Frames, "took", time.Since(start).Round(time.Second).String())
	if f.Frames > 0 {
		return errRebuild
	}
	return nil
}

// uncache has the files read from the disk and not from memory. Only a hint.
func uncache(dir string) {
	for _, name := range []string{"disk.raw", "frames.zst"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			continue // there are no compressed cells, or reading says what is wrong
		}
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		_ = f.Close()
	}
}

func (im *image) scrubbing(now *api.RelayScrub) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.scrubNow = now
}

// scrubView is the verification in a report; nil when there is nothing to say.
func (im *image) scrubView() *api.RelayScrub {
	s := im.r.scrubs
	last := s.of(im.want.Digest)
	im.mu.Lock()
	now := im.scrubNow
	im.mu.Unlock()
	if s.every == 0 || last.End.IsZero() && now == nil {
		return nil
	}
	v := api.RelayScrub{Last: last.End, Damaged: last.Damaged, Frames: last.Frames}
	if now != nil {
		v.Running, v.Done, v.Paused = true, now.Done, now.Paused
	} else {
		v.Next = due(last.End, s.every, time.Now().UTC())
	}
	return &v
}

// sent is how much the relay has sent to all hosts.
func (r *relay) sent() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, im := range r.images {
		n += im.uploaded()
	}
	return n
}

// digests names the versions that are here or on their way.
func (r *relay) digests() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]bool{}
	for _, im := range r.images {
		out[im.want.Digest] = true
	}
	return out
}

// readBack notes that all of a copy has just been read and was right. What the
// last verification found stays to be seen.
func (im *image) readBack() {
	f := im.r.scrubs.of(im.want.Digest)
	f.End = time.Now().UTC().Truncate(time.Second)
	im.r.scrubs.done(im.want.Digest, f, im.r.digests())
}
