package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"labswarm/api"
)

// follow begins what is wanted and not here, and ends what is not wanted any
// more.
func (r *relay) follow(ctx context.Context, wants []api.RelayWant) {
	wanted := map[string]bool{} // by name/version
	names := map[string]bool{}  // with a wanted version
	waits := map[string]bool{}  // names of which a wanted version is not served yet
	var drop []*image
	r.mu.Lock()
	for _, w := range wants {
		id := w.Name + "/" + w.Version
		wanted[id], names[w.Name] = true, true
		im := r.images[id]
		if im != nil && im.want.Digest != w.Digest { // the same number, another content
			drop = append(drop, im)
			im = nil
		}
		if im == nil {
			im = newImage(r, w)
			r.images[id] = im
			r.wg.Go(func() { im.run(ctx) })
		}
		im.update(w)
		switch {
		case im.serving():
			delete(r.cramped, w.Name)
		case !r.cramped[w.Name]:
			waits[w.Name] = true
		}
	}
	// An older version stays until the newer is served: it is what the disk has
	// of this image. It stays, too, while the server has lost the name.
	old := func(name string) bool {
		return !slices.Contains(r.cfg.Images, name) || names[name] && !waits[name]
	}
	for id, im := range r.images {
		if !wanted[id] && old(im.want.Name) {
			drop = append(drop, im)
			delete(r.images, id)
		}
	}
	r.mu.Unlock()
	for _, im := range drop {
		im.stop()
	}
	r.sweep(wanted, names, old)
}

// sweep removes copies from the disk that are not wanted any more, when
// something has changed.
func (r *relay) sweep(wanted, names map[string]bool, old func(name string) bool) {
	state := fmt.Sprint(wanted)
	for name := range names {
		state += fmt.Sprint(name, old(name))
	}
	if state == r.swept {
		return
	}
	r.swept = state
	lib := r.library()
	list, err := lib.List()
	if err != nil {
		r.cfg.Log.Error("list copies", "err", err)
		return
	}
	for _, v := range list {
		if id := v.Name + "/" + v.Version; !wanted[id] && old(v.Name) {
			r.note("copy is not wanted any more", id, lib.Remove(v.Name, v.Version))
		}
	}
	pending, err := lib.Pending()
	if err != nil {
		r.cfg.Log.Error("list copies", "err", err)
		return
	}
	for _, id := range pending {
		if name, version, _ := strings.Cut(id, "/"); !wanted[id] && (names[name] || old(name)) {
			r.note("unfinished copy is not wanted any more", id, lib.Forget(name, version))
		}
	}
}

func (r *relay) note(what, id string, err error) {
	if err != nil {
		r.cfg.Log.Warn(what+", and cannot be removed", "image", id, "err", err)
		return
	}
	r.cfg.Log.Info(what+": removed", "image", id)
}

// cramp says that there is no room for the wanted version of an image: older
// ones go first then.
func (r *relay) cramp(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cramped[name] = true
}

// stopAll ends every image.
func (r *relay) stopAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, im := range r.images {
		im.cancel()
	}
}
