// Package keeper looks after the versions of the image store: who needs one, which may go, which must not be deployed,
// and when each is read again. It works beside a running server (server/daemon runs it) and, when none runs, for the
// command line alone; either way it holds the state file, so that a job and a removal cannot pass each other by.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/server/access"
	"labswarm/server/daemon/control"
	"labswarm/server/event"
	"labswarm/server/store"
	"labswarm/server/versions"
)

// Config is what a Keeper needs; Store, Library and Log are required.
type Config struct {
	Store   store.Store
	Library *library.Library // opened with the key
	Log     *slog.Logger
	Serving func() map[string]string // name/version -> who has it open, a sentence; nil = nobody
	Busy    func(context.Context) bool
	Ring    func()        // wakes readers of the event log
	Every   time.Duration // between two scrubs of a version, 0 = never
	Rate    int64         // of a scrub, bytes per second, 0 = no limit
	Look    time.Duration // between two looks for a scrub that is due, 0 = a minute

	// Fetch gets damaged cells from those that Sources names; nil = nobody can be asked.
	Fetch    library.Fetch
	Sources  func(infoHash [20]byte) []string
	Restored func(infoHash [20]byte, pieces []int) // told of pieces that are right again; nil = nobody
}

// Keeper is safe for concurrent use.
type Keeper struct {
	cfg      Config
	suspects chan suspect
	fetching chan struct{} // a token: one Fetch at a time
	hurt     chan struct{} // damage was told: look for somebody who can heal it

	mu    sync.Mutex // of what SetScrub changes
	every time.Duration
	rate  int64
}

// SetScrub replaces Config.Every and Config.Rate. A scrub that runs keeps its rate.
func (k *Keeper) SetScrub(every time.Duration, rate int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.every, k.rate = every, rate
}

func (k *Keeper) scrubSettings() (every time.Duration, rate int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.every, k.rate
}

// New returns a Keeper. What an interrupted removal left undone is finished first.
func New(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Serving == nil {
		cfg.Serving = func() map[string]string { return nil }
	}
	if cfg.Busy == nil {
		cfg.Busy = func(context.Context) bool { return false }
	}
	if cfg.Ring == nil {
		cfg.Ring = func() {}
	}
	if cfg.Sources == nil {
		cfg.Sources = func([20]byte) []string { return nil }
	}
	if cfg.Restored == nil {
		cfg.Restored = func([20]byte, []int) {}
	}
	if cfg.Look == 0 {
		cfg.Look = time.Minute
	}
	k := &Keeper{cfg: cfg, suspects: make(chan suspect, 64), fetching: make(chan struct{}, 1), hurt: make(chan struct{}, 1), every: cfg.Every, rate: cfg.Rate}
	return k, k.finish(ctx)
}

// finish ends removals that a crash cut short: the mark is in the store, the folder may still be there.
func (k *Keeper) finish(ctx context.Context) error {
	var all []versions.Record
	err := k.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		all, err = versions.List(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("read what is known of images: %w", err)
	}
	for _, r := range all {
		if !r.Removing {
			continue
		}
		if digest, err := k.digest(r.Name, r.Version); err == nil && digest != r.Digest {
			// The folder had gone, only the mark was left, and another image has that number by now.
			err = k.cfg.Store.Update(ctx, func(tx store.Tx) error { return versions.Delete(tx, r.Name, r.Version) })
			if err != nil {
				return fmt.Errorf("forget image %s/%s: %w", r.Name, r.Version, err)
			}
			continue
		}
		if err := k.delete(ctx, r, "its removal had been interrupted"); err != nil {
			k.cfg.Log.Error("finish the removal of an image", "image", r.Name+"/"+r.Version, "err", err)
		}
	}
	return nil
}

// ImageStates lists what is known of each version in the store.
func (k *Keeper) ImageStates(ctx context.Context) ([]api.ImageState, error) {
	list, err := k.cfg.Library.List()
	if err != nil {
		return nil, err
	}
	return k.states(ctx, list)
}

func (k *Keeper) states(ctx context.Context, list []library.VersionInfo) ([]api.ImageState, error) {
	serving := k.cfg.Serving()
	out := []api.ImageState{}
	err := k.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = out[:0]
		refs, err := control.References(tx)
		if err != nil {
			return err
		}
		for _, v := range list {
			r, err := record(tx, v.Name, v.Version, v.Digest)
			if err != nil {
				return err
			}
			s := api.ImageState{Name: v.Name, Version: v.Version, Refs: []string{}, Pinned: r.Pinned, Quarantine: r.Quarantine, Checked: r.Checked, Outcome: r.Outcome,
				Bad: r.Bad, Healing: r.Healing}
			if r.Pinned {
				s.Refs = append(s.Refs, "it is pinned")
			}
			if who := serving[v.Name+"/"+v.Version]; who != "" {
				s.Refs = append(s.Refs, who)
			}
			for _, ref := range refs {
				if ref.Image == v.Name && ref.Version == v.Version {
					s.Refs = append(s.Refs, ref.By)
				}
			}
			out = append(out, s)
		}
		return nil
	})
	return out, err
}

// record is versions.Of; a version that cannot be opened has no digest to tell it by.
func record(tx store.Tx, name, version, digest string) (versions.Record, error) {
	if digest == "" {
		return versions.Get(tx, name, version)
	}
	return versions.Of(tx, name, version, digest)
}

// RemoveImage removes one version, unless somebody needs it.
func (k *Keeper) RemoveImage(ctx context.Context, req api.ImageRemove) error {
	if err := errors.Join(manifest.CheckName(req.Name), manifest.CheckVersion(req.Version)); err != nil {
		return refuse(http.StatusUnprocessableEntity, api.CodeUsage, "remove an image: %v", err)
	}
	id := req.Name + "/" + req.Version
	if !k.cfg.Library.Has(req.Name, req.Version) {
		return refuse(http.StatusNotFound, api.CodeNotFound, "remove %s: no such image; `labswarm image ls` shows what there is", id)
	}
	newest, err := k.cfg.Library.Latest(req.Name)
	if err != nil {
		return err
	}
	digest, err := k.digest(req.Name, req.Version)
	if err != nil {
		digest = "" // damaged: it can go all the same
	}
	serving := k.cfg.Serving()[id]
	var mark versions.Record
	err = k.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if mark, err = record(tx, req.Name, req.Version, digest); err != nil {
			return err
		}
		refs, err := control.References(tx)
		if err != nil {
			return err
		}
		if why := needed(req, mark, refs, serving, newest == req.Version); why != "" {
			return refuse(http.StatusConflict, api.CodeConflict, "remove %s: %s", id, why)
		}
		mark.Removing = true
		return versions.Put(tx, mark)
	})
	if err != nil {
		return err
	}
	return k.delete(ctx, mark, "removed")
}

// needed says why a version must stay; "" when it can go. Force overrides what is only a way back.
func needed(req api.ImageRemove, r versions.Record, refs []control.Ref, serving string, newest bool) string {
	var hard, soft []string
	if serving != "" {
		hard = append(hard, serving)
	}
	if r.Pinned {
		hard = append(hard, fmt.Sprintf("it is pinned (`labswarm image unpin %s/%s`)", req.Name, req.Version))
	}
	for _, ref := range refs {
		switch {
		case ref.Image != req.Name || ref.Version != req.Version:
		case ref.Live:
			hard = append(hard, ref.By)
		default:
			soft = append(soft, ref.By)
		}
	}
	if newest {
		soft = append(soft, "it is the newest of "+req.Name)
	}
	switch {
	case len(hard) > 0:
		return strings.Join(append(hard, soft...), "; ")
	case len(soft) > 0 && !req.Force:
		return strings.Join(soft, "; ") + "; --force removes it all the same"
	}
	return ""
}

// delete removes the folder of a version that is marked, then the mark.
func (k *Keeper) delete(ctx context.Context, r versions.Record, why string) error {
	err := k.cfg.Library.Remove(r.Name, r.Version)
	gone := !k.cfg.Library.Has(r.Name, r.Version)
	if errors.Is(err, library.ErrNotFound) {
		err = nil
	}
	// It has to be said what became of it, also when the one who asked has gone.
	err2 := k.cfg.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error {
		if !gone {
			r.Removing = false
			return versions.Put(tx, r)
		}
		if err := versions.Delete(tx, r.Name, r.Version); err != nil {
			return err
		}
		_, err := event.Append(tx, api.Event{Time: time.Now().UTC(), Level: "info", Code: "image_removed", Text: "image " + r.Name + "/" + r.Version + ": " + why + access.By(ctx)})
		return err
	})
	k.cfg.Ring()
	return errors.Join(err, err2)
}

// ImageGarbage lists the versions that nobody needs: no job, room or pin names them, nobody has them open, and there are
// keep newer ones of their name that can be used. They are removed one by one with RemoveImage, which looks again.
func (k *Keeper) ImageGarbage(ctx context.Context, keep int) ([]api.ImageGarbage, error) {
	if keep < 1 || keep > 1000 {
		return nil, refuse(http.StatusUnprocessableEntity, api.CodeUsage, "keep %d versions: use 1 to 1000", keep)
	}
	list, err := k.cfg.Library.List()
	if err != nil {
		return nil, err
	}
	states, err := k.states(ctx, list)
	if err != nil {
		return nil, err
	}
	return garbage(list, states, keep), nil
}

// garbage is the rule of ImageGarbage. list holds each name's versions oldest first, states the same ones. A version that
// cannot be used is neither counted nor removed: people should look at it.
func garbage(list []library.VersionInfo, states []api.ImageState, keep int) []api.ImageGarbage {
	out := []api.ImageGarbage{}
	kept := map[string]int{}
	for i := len(list) - 1; i >= 0; i-- {
		v, s := list[i], states[i]
		if v.Err != "" || s.Quarantine != "" {
			continue
		}
		if kept[v.Name]++; kept[v.Name] <= keep || v.Latest || len(s.Refs) > 0 {
			continue
		}
		out = append(out, api.ImageGarbage{Name: v.Name, Version: v.Version, Bytes: v.AllocatedBytes})
	}
	slices.Reverse(out)
	return out
}

// PinImage keeps a version from being removed, or ends that.
func (k *Keeper) PinImage(ctx context.Context, req api.ImagePin) error {
	return k.change(ctx, req.Name, req.Version, func(r *versions.Record) (api.Event, error) {
		if r.Removing {
			return api.Event{}, refuse(http.StatusConflict, api.CodeConflict, "pin %s/%s: it is being removed", req.Name, req.Version)
		}
		r.Pinned = req.Pinned
		word := map[bool]string{true: "pinned", false: "not pinned any more"}[req.Pinned]
		return api.Event{Level: "info", Code: "image_pinned", Text: "image " + req.Name + "/" + req.Version + " is " + word}, nil
	})
}

// change changes the record of a version that exists, and stores an event with it.
func (k *Keeper) change(ctx context.Context, name, version string, fn func(*versions.Record) (api.Event, error)) error {
	digest, err := k.digest(name, version)
	if err != nil {
		return err
	}
	err = k.cfg.Store.Update(ctx, func(tx store.Tx) error {
		r, err := versions.Of(tx, name, version, digest)
		if err != nil {
			return err
		}
		ev, err := fn(&r)
		if err != nil {
			return err
		}
		if err := versions.Put(tx, r); err != nil || ev.Code == "" {
			return err
		}
		ev.Time = time.Now().UTC()
		ev.Text += access.By(ctx)
		_, err = event.Append(tx, ev)
		return err
	})
	k.cfg.Ring()
	return err
}

// digest opens a version to know its content.
func (k *Keeper) digest(name, version string) (string, error) {
	if err := errors.Join(manifest.CheckName(name), manifest.CheckVersion(version)); err != nil {
		return "", refuse(http.StatusUnprocessableEntity, api.CodeUsage, "%v", err)
	}
	v, err := k.cfg.Library.Get(name, version)
	if errors.Is(err, library.ErrNotFound) {
		return "", refuse(http.StatusNotFound, api.CodeNotFound, "%v", err)
	}
	if err != nil {
		return "", err
	}
	d := v.Digest()
	return fmt.Sprintf("%x", d), v.Close()
}

func refuse(status int, code, format string, a ...any) error {
	return &api.Problem{Status: status, Title: "refused", Code: code, Detail: fmt.Sprintf(format, a...)}
}
