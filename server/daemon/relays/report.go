package relays

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"labswarm/api"
	"labswarm/images/manifest"
	"labswarm/tracker/registry"
)

// Limits of a report.
const (
	maxWants  = 64
	maxImages = 256
	maxText   = 300 // bytes of a sentence for people
	maxRoom   = 64
)

var hex32 = regexp.MustCompile(`^[0-9a-f]{32}$`)

// check refuses a report that cannot be true and makes its texts safe to show.
func check(p *api.RelayReport) error {
	bad := func(format string, a ...any) error {
		return fail(http.StatusUnprocessableEntity, api.CodeUsage, "report of a relay: "+format, a...)
	}
	switch {
	case !hex32.MatchString(p.Instance):
		return bad("instance is not 32 lower-case hex digits")
	case p.PeerPort < 1 || p.PeerPort > 65535:
		return bad("peer port %d", p.PeerPort)
	case p.LinkMbps < 0 || p.LinkMbps > 10_000_000:
		return bad("link of %d Mb/s", p.LinkMbps)
	case len(p.Wants) > maxWants || len(p.Images) > maxImages:
		return bad("%d names, %d images; at most %d and %d", len(p.Wants), len(p.Images), maxWants, maxImages)
	}
	for _, name := range p.Wants {
		if err := manifest.CheckName(name); err != nil {
			return bad("%v", err)
		}
	}
	for i := range p.Images {
		m := &p.Images[i]
		if err := manifest.CheckName(m.Name); err != nil {
			return bad("%v", err)
		}
		if err := manifest.CheckVersion(m.Version); err != nil {
			return bad("%v", err)
		}
		if m.Pieces < 0 || m.Have < 0 || m.Have > m.Pieces || len(m.InfoHash) > 40 || m.Sent < 0 || m.Received < 0 || m.RateBps < 0 {
			return bad("image %s: %d of %d pieces", m.Name, m.Have, m.Pieces)
		}
		if s := m.Scrub; s != nil && (s.Damaged < 0 || s.Damaged > m.Pieces || s.Frames < 0 || s.Frames > m.Pieces || s.Done < 0 || s.Done > m.Pieces) {
			return bad("image %s: verification of %d pieces found %d and %d damaged ones, after %d", m.Name, m.Pieces, s.Damaged, s.Frames, s.Done)
		}
		m.State = text(m.State, maxText)
	}
	p.Room, p.Error, p.Version = text(p.Room, maxRoom), text(p.Error, maxText), text(p.Version, maxRoom)
	return nil
}

// text keeps what can be printed, at most n bytes.
func text(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}

// Report takes in what a relay says of itself and tells it what to hold, whom
// to fetch it from and whom to serve.
func (b *Book) Report(ctx context.Context, token string, key ed25519.PublicKey, from netip.Addr, p *api.RelayReport) (api.RelayReply, error) {
	b.mu.Lock()
	r, err := b.auth(token)
	b.mu.Unlock()
	if err != nil {
		return api.RelayReply{}, err
	}
	if err := check(p); err != nil {
		return api.RelayReply{}, err
	}
	wants, missing, err := b.wants(ctx, r.rec.Name, key, p)
	if err != nil {
		return api.RelayReply{}, err
	}
	back, err := b.take(r, from, p, wants, missing)
	if err != nil {
		return api.RelayReply{}, err
	}
	b.apply()
	if back {
		b.cfg.Jobs.Note(ctx, api.Event{Level: "info", Code: "relay_here", Text: fmt.Sprintf("relay %s is there, at %s", r.rec.Name, from)})
	}
	return b.reply(r), nil
}

// take books a report; back says that the relay was not there before.
func (b *Book) take(r *relay, from netip.Addr, p *api.RelayReport, wants []api.RelayWant, missing []string) (back bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.relays[r.rec.Name] != r {
		return false, fail(http.StatusUnauthorized, api.CodeBadToken, "relay %s was removed", r.rec.Name)
	}
	if r.alive && r.report.Instance != p.Instance {
		return false, fail(http.StatusConflict, api.CodeConflict, "relay %s is running at %s already: each machine needs a name and a token of its own (`labswarm relay add`)", r.rec.Name, r.addr)
	}
	back = !r.alive
	r.alive, r.seen = true, time.Now()
	r.addr = netip.AddrPortFrom(from.Unmap(), uint16(p.PeerPort)) //nolint:gosec // checked: below 65536
	r.report, r.wants, r.miss = *p, wants, missing
	return back, nil
}

// wants lists the versions a relay is to hold: the newest of each name, and
// those that live jobs deploy.
func (b *Book) wants(ctx context.Context, relay string, key ed25519.PublicKey, p *api.RelayReport) (wants []api.RelayWant, missing []string, err error) {
	live, err := b.cfg.Jobs.LiveImages(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range p.Wants {
		newest, err := b.cfg.Images.Latest(name)
		if err != nil {
			return nil, nil, fmt.Errorf("find image %s: %w", name, err)
		}
		if newest == "" {
			missing = append(missing, name)
			continue
		}
		versions := []string{newest}
		for _, v := range live {
			if v.Name == name && !slices.Contains(versions, v.Version) {
				versions = append(versions, v.Version)
			}
		}
		for _, v := range versions {
			info, err := b.cfg.Images.Find(name, v)
			if err != nil { // damaged or removed meanwhile: the others go on
				b.cfg.Log.Warn("image for a relay", "image", name+"/"+v, "err", err)
				missing = append(missing, name+"/"+v)
				continue
			}
			pass, err := b.cfg.Jobs.RelayPass(info.InfoHash, relay, key)
			if err != nil {
				return nil, nil, err
			}
			wants = append(wants, api.RelayWant{Name: name, Version: v, InfoHash: info.InfoHash, Digest: info.Digest, Pass: pass})
		}
	}
	return wants, missing, nil
}

// holds reports whether a relay serves all of a version; b.mu is held.
func (r *relay) holds(w api.RelayWant) bool {
	for _, m := range r.report.Images {
		if m.InfoHash == w.InfoHash && m.Name == w.Name && m.Version == w.Version {
			return m.Serving && m.Pieces > 0 && m.Have == m.Pieces
		}
	}
	return false
}

// reply makes the answer to a report.
func (b *Book) reply(r *relay) api.RelayReply {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := api.RelayReply{Name: r.rec.Name, IntervalMs: int(interval.Milliseconds()), ImageKeys: b.cfg.ImageKeys, Missing: r.miss, Wants: []api.RelayWant{}}
	for _, w := range r.wants {
		if !r.holds(w) {
			w.Sources = b.sources(r, w)
		}
		out.Wants = append(out.Wants, w)
	}
	return out
}

// sources says whom a relay fetches a version from: a relay of its own room
// that has it all, else the server; b.mu is held.
func (b *Book) sources(r *relay, w api.RelayWant) *api.Assignment {
	var refs []api.PeerRef
	for _, o := range b.relays {
		if o != r && o.alive && r.report.Room != "" && o.report.Room == r.report.Room && o.holds(w) {
			refs = append(refs, api.PeerRef{HostID: o.rec.Name, Addr: o.addr.String()})
		}
	}
	slices.SortFunc(refs, func(a, b api.PeerRef) int { return strings.Compare(a.HostID, b.HostID) })
	refs = append(refs, b.cfg.Swarms.Seed())
	return &api.Assignment{Parent: refs[0], Fallbacks: refs[1:]}
}

// apply brings the swarms up to date: versions that a relay lacks are served to
// it, versions that it holds have it in their plan.
func (b *Book) apply() {
	b.applying.Lock()
	defer b.applying.Unlock()
	lend, seeds := map[string]api.RelayWant{}, map[string][]registry.Seed{}
	b.mu.Lock()
	for _, r := range b.relays {
		if !r.alive {
			continue
		}
		for _, w := range r.wants {
			if !r.holds(w) {
				lend[w.InfoHash] = w
				continue
			}
			seeds[w.InfoHash] = append(seeds[w.InfoHash], registry.Seed{ID: r.rec.Name, Addr: r.addr, Room: r.report.Room, LinkMbps: r.report.LinkMbps})
		}
	}
	b.mu.Unlock()
	for ih, w := range lend {
		if b.lent[ih] {
			continue
		}
		if err := b.cfg.Swarms.Lend(w.Name, w.Version); err != nil {
			b.cfg.Log.Error("serve image to relays", "image", w.Name+"/"+w.Version, "err", err)
			continue
		}
		b.lent[ih] = true
	}
	for ih := range b.lent {
		if _, ok := lend[ih]; !ok {
			b.cfg.Swarms.Return(ih)
			delete(b.lent, ih)
		}
	}
	for ih, list := range seeds {
		slices.SortFunc(list, func(a, b registry.Seed) int { return strings.Compare(a.ID, b.ID) })
		if !slices.EqualFunc(list, b.told[ih], sameSeed) {
			b.told[ih] = list
			b.cfg.Swarms.SetRelays(ih, list)
		}
	}
	for ih := range b.told {
		if _, ok := seeds[ih]; !ok {
			delete(b.told, ih)
			b.cfg.Swarms.SetRelays(ih, nil)
		}
	}
}

func sameSeed(a, b registry.Seed) bool {
	return a.ID == b.ID && a.Addr == b.Addr && a.Room == b.Room && a.LinkMbps == b.LinkMbps
}

// File returns a small file of an image version to a relay that is to hold it.
func (b *Book) File(_ context.Context, token, name, version, file string) ([]byte, error) {
	b.mu.Lock()
	r, err := b.auth(token)
	wanted := err == nil && slices.ContainsFunc(r.wants, func(w api.RelayWant) bool { return w.Name == name && w.Version == version })
	b.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case !wanted:
		return nil, fail(http.StatusNotFound, api.CodeNotFound, "image %s/%s is not one this relay asked for", name, version)
	}
	raw, err := b.cfg.Images.File(name, version, file)
	if err == nil && raw == nil {
		err = fail(http.StatusNotFound, api.CodeNotFound, "image %s/%s has no %s", name, version, file)
	}
	return raw, err
}

// Run drops relays that fall silent from the plan, until ctx ends; then it
// returns nil.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		lost := b.age(time.Now())
		if len(lost) > 0 {
			b.apply()
		}
		for _, text := range lost {
			b.cfg.Jobs.Note(ctx, api.Event{Level: "warn", Code: "relay_lost", Text: text})
		}
	}
}

// age returns a sentence for each relay that has fallen silent.
func (b *Book) age(now time.Time) (lost []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.relays {
		if r.alive && now.Sub(r.seen) > api.RelaySilence {
			r.alive = false
			lost = append(lost, fmt.Sprintf("relay %s at %s has not been heard of for %v: hosts fetch from others", r.rec.Name, r.addr, api.RelaySilence))
		}
	}
	return lost
}
