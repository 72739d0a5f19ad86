package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/server/store"
	"labswarm/server/versions"
)

// suspect is a version of which a damaged cell was met while it was served.
type suspect struct {
	name, version, why string
	cells              []int64 // damaged ones, when they are known
}

// Suspect puts a version into quarantine because a cell of it was found damaged; it is read as a whole as soon as no job
// runs, and the cell is repaired before that if it can be had. It never blocks: of many reports of one version the first
// will do.
func (k *Keeper) Suspect(name, version, why string, cells ...int64) {
	select {
	case k.suspects <- suspect{name, version, why, cells}:
	default:
	}
}

// Run takes in suspects and scrubs what is due, until ctx ends. It returns nil then.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.resume(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("look for checks of images that were cut short: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { k.heals(ctx); return nil })
	g.Go(func() error { k.takeSuspects(ctx); return nil })
	g.Go(func() error { k.scrubs(ctx); return nil })
	return g.Wait()
}

func (k *Keeper) takeSuspects(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-k.suspects:
			err := k.change(ctx, s.name, s.version, func(r *versions.Record) (api.Event, error) {
				known := r.Quarantine != "" && r.Checked.IsZero() // and not looked at yet
				for _, c := range s.cells {
					if !slices.Contains(r.Bad, c) && len(r.Bad) < maxBad {
						r.Bad = append(r.Bad, c)
					}
				}
				if known {
					return api.Event{}, nil
				}
				r.Quarantine, r.Checked, r.Outcome, r.Healing = s.why, time.Time{}, "", ""
				return damaged(s.name, s.version, s.why), nil
			})
			k.report(err, s.name, s.version)
			k.damageTold()
		}
	}
}

func damaged(name, version, why string) api.Event {
	return api.Event{Level: "error", Code: "image_damaged", Text: fmt.Sprintf("image %s/%s is in quarantine: %s; running jobs are served its other cells, no new job may use it", name, version, why)}
}

func (k *Keeper) report(err error, name, version string) {
	if err != nil && !errors.Is(err, context.Canceled) {
		k.cfg.Log.Error("look after an image", "image", name+"/"+version, "err", err)
	}
}

// scrubs looks now and then for a version whose turn has come.
func (k *Keeper) scrubs(ctx context.Context) {
	t := time.NewTicker(k.cfg.Look)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			for _, v := range k.due(ctx, time.Now()) {
				k.report(k.Scrub(ctx, v.Name, v.Version, nil), v.Name, v.Version)
			}
		}
	}
}

// due lists what to scrub now; nothing while a job runs.
func (k *Keeper) due(ctx context.Context, now time.Time) (out []library.VersionInfo) {
	if k.cfg.Busy(ctx) {
		return nil
	}
	every, _ := k.scrubSettings()
	list, err := k.cfg.Library.List()
	if err == nil {
		err = k.cfg.Store.View(ctx, func(tx store.Tx) error {
			out = nil
			for _, v := range list {
				r, err := versions.Of(tx, v.Name, v.Version, v.Digest)
				if err != nil {
					return err
				}
				if v.Err == "" && isDue(r, v.Created, now, every) {
					out = append(out, v)
				}
			}
			return nil
		})
	}
	k.report(err, "", "")
	return out
}

// Hours of the night, local time, in which scrubs begin.
const nightFrom, nightTo = 1, 6

// isDue tells whether a version is to be read again: in the night after its time is up, at any hour when the server was
// off for so many nights that another day has passed, and at once when it is in quarantine and nobody has looked yet.
// What was never checked counts from its import, which read it back.
func isDue(r versions.Record, created, now time.Time, every time.Duration) bool {
	if r.Removing {
		return false
	}
	if r.Quarantine != "" && !atWork(r, now) && (r.Checked.IsZero() || !r.Begun.IsZero()) {
		return true // nobody has looked, or who did was cut short
	}
	last := r.Checked
	if last.IsZero() {
		last = created
	}
	age := now.Sub(last)
	if every <= 0 || age < every {
		return false
	}
	return now.Hour() >= nightFrom && now.Hour() < nightTo || age >= every+24*time.Hour
}

// Scrub reads a version, quarantines it when a cell is damaged, mends what can be mended and stores the outcome.
func (k *Keeper) Scrub(ctx context.Context, name, version string, progress func(library.Progress)) error {
	var digest string
	note := func(ctx context.Context, quarantine, outcome string, begun bool, bad []*library.BadCellError) error {
		return k.CheckedImage(ctx, api.ImageCheck{Name: name, Version: version, Digest: digest, Quarantine: quarantine, Outcome: outcome, Begun: begun, Bad: cellsOf(bad)})
	}
	digest, err := k.digest(name, version)
	if err != nil {
		return err
	}
	_, rate := k.scrubSettings()
	s, err := k.cfg.Library.Scrub(ctx, name, version, library.ScrubOptions{
		Rate: rate, Pause: k.pause(), Progress: progress, Fetch: k.fetch,
		Damaged: func(ctx context.Context, r library.Result) error {
			return note(ctx, r.Quarantine(), "", true, r.Bad)
		},
	})
	if err != nil {
		return err
	}
	quarantine := ""
	if !s.Result.OK() {
		quarantine = s.Text()
	}
	return note(ctx, quarantine, s.Text(), false, s.Result.Bad)
}

// pause returns a function that waits while a job runs. It asks once a second at most.
func (k *Keeper) pause() func(context.Context) error {
	var next time.Time
	return func(ctx context.Context) error {
		if time.Now().Before(next) {
			return nil
		}
		for k.cfg.Busy(ctx) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
			}
		}
		next = time.Now().Add(time.Second)
		return ctx.Err()
	}
}

// CheckedImage stores what reading a version found.
func (k *Keeper) CheckedImage(ctx context.Context, c api.ImageCheck) error {
	var were []int64 // damaged until now
	err := k.change(ctx, c.Name, c.Version, func(r *versions.Record) (api.Event, error) {
		if r.Digest != c.Digest {
			return api.Event{}, refuse(http.StatusConflict, api.CodeConflict, "check of %s/%s: another image has taken its place meanwhile", c.Name, c.Version)
		}
		before := r.Quarantine
		were = r.Bad
		r.Quarantine, r.Begun, r.Bad = c.Quarantine, time.Time{}, c.Bad[:min(len(c.Bad), maxBad)]
		if c.Quarantine == "" {
			r.Bad, r.Healing = nil, ""
		} else if c.Begun {
			r.Begun = time.Now().UTC()
		}
		if !c.Begun {
			r.Checked, r.Outcome = time.Now().UTC(), c.Outcome
		}
		switch {
		case c.Quarantine != "" && (before == "" || !c.Begun):
			return damaged(c.Name, c.Version, c.Quarantine), nil
		case c.Quarantine == "" && before != "":
			return api.Event{Level: "info", Code: "image_mended", Text: fmt.Sprintf("image %s/%s may be deployed again: %s", c.Name, c.Version, c.Outcome)}, nil
		}
		return api.Event{Level: "info", Code: "image_checked", Text: fmt.Sprintf("image %s/%s: %s", c.Name, c.Version, c.Outcome)}, nil
	})
	switch {
	case err != nil:
	case c.Quarantine != "":
		k.damageTold()
	case len(were) > 0:
		err = k.restored(c.Name, c.Version, were)
	}
	return err
}
