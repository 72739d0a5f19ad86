package daemon

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/images/library"
)

const week = 7 * 24 * time.Hour

// flipFrame changes one bit in a compressed cell that travels.
func flipFrame(t *testing.T, cp *library.Version) {
	t.Helper()
	path := filepath.Join(cp.Dir(), "frames.zst")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range cp.Manifest().Pieces() {
		if b, ok, err := cp.Frame(i, nil); ok && err == nil {
			flip(t, path, int64(bytes.Index(raw, b)+len(b)/2))
			return
		}
	}
	t.Fatal("no compressed cell is worth sending")
}

// longAgo makes the relay believe that it verified its copy then.
func (r *second) longAgo(cp *library.Version, ago time.Duration) {
	r.s.t.Helper()
	d := cp.Digest()
	raw, err := json.Marshal(map[string]any{hex.EncodeToString(d[:]): map[string]any{"end": time.Now().Add(-ago).UTC()}})
	if err == nil {
		err = os.WriteFile(filepath.Join(r.cfg.StateDir, "scrub.json"), raw, 0o600)
	}
	if err != nil {
		r.s.t.Fatal(err)
	}
}

// TestRelayVerifiesItsDisk: bits that flip on a relay's disk are found by the
// weekly verification though nobody asks for the cells, and are right afterwards;
// not a week early, and never without --scrub.
func TestRelayVerifiesItsDisk(t *testing.T) {
	for _, tt := range []struct {
		name           string
		codec          string
		every          time.Duration
		ago            time.Duration
		cells, damaged int // flipped, and found
		frames         int
	}{
		{"a week is over", library.CodecNone, week, week + time.Hour, 2, 2, 0},
		{"a week is over, compressed", library.CodecZstd, week, week + time.Hour, 1, 1, 1},
		{"all is well", library.CodecZstd, week, week + time.Hour, 0, 0, 0},
		{"not due yet", library.CodecNone, week, week - time.Hour, 1, 0, 0},
		{"switched off", library.CodecNone, 0, 10 * week, 1, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.codec = tt.codec
			s.importImage()
			r := newSecond(s, "annex")
			r.cfg.Scrub = week
			r.start()
			fresh := s.waitRelay("serves and has been read back", func(v api.Relay) bool { return serves(1)(v) && v.Images[0].Scrub != nil }).Images[0].Scrub
			if time.Since(fresh.Last) > time.Minute || fresh.Next.Sub(fresh.Last) != week || fresh.Damaged != 0 {
				t.Errorf("after copying: %+v; want it verified just now", fresh)
			}
			r.end()
			cp, err := r.lib().Get(s.image, "")
			if err != nil {
				t.Fatal(err)
			}
			defer cp.Close()
			m := cp.Manifest()
			for i := range tt.cells {
				flip(t, filepath.Join(cp.Dir(), "disk.raw"), m.CellOf(m.Pieces()-2-i)*m.Cell+m.Cell/2)
			}
			for range tt.frames {
				flipFrame(t, cp)
			}
			r.longAgo(cp, tt.ago)
			r.cfg.Scrub = tt.every
			r.start()
			if tt.every == 0 || tt.ago < tt.every {
				r.untouched(cp, tt.every == 0)
				return
			}
			v := s.waitRelay("has verified its disk", func(v api.Relay) bool {
				return serves(1)(v) && v.Images[0].Received == int64(tt.damaged)*m.Cell && v.Images[0].Scrub != nil &&
					time.Since(v.Images[0].Scrub.Last) < time.Hour && !v.Images[0].Scrub.Running
			}).Images[0]
			if v.Scrub.Damaged != tt.damaged || v.Scrub.Frames != tt.frames || v.Scrub.Next.Sub(v.Scrub.Last) != week {
				t.Errorf("%+v; want %d damaged cells and %d compressed ones", v.Scrub, tt.damaged, tt.frames)
			}
			var res library.Result
			s.waitRelay("has a copy that is all right", func(v api.Relay) bool { // making the compressed cells again takes a moment
				now, err := r.lib().Get(s.image, "")
				if err != nil {
					return false
				}
				defer now.Close()
				res, err = now.Verify(t.Context(), nil)
				return serves(1)(v) && err == nil && (res.OK() && res.FramesOK() || tt.frames == 0)
			})
			if !res.OK() || !res.FramesOK() {
				t.Errorf("the copy on the relay: %+v", res)
			}
		})
	}
}

// untouched checks that nobody looks at the damage: a host that wants the cell
// would find it.
func (r *second) untouched(cp *library.Version, off bool) {
	t := r.s.t
	t.Helper()
	v := r.s.waitRelay("serves again", func(v api.Relay) bool { return serves(1)(v) && v.Images[0].Received == 0 }).Images[0] // in its second life
	if off != (v.Scrub == nil) || v.Scrub != nil && time.Since(v.Scrub.Last) < time.Hour {
		t.Errorf("verification: %+v; want none now", v.Scrub)
	}
	if res, err := cp.Verify(t.Context(), nil); err != nil || len(res.Bad) != 1 {
		t.Errorf("the copy: %+v, %v; want the one flipped bit still there", res, err)
	}
}
