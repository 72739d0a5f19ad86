package daemon

import "labswarm/images/manifest"

// Kept implements control.Kept: the data cells of version to that a host has
// already when it was just given version from. It compares what the manifests
// say, so files that people left on the disk are not counted.
func (im *images) Kept(name, from, to string) (int, bool) {
	a, err := im.manifest(name, from)
	if err != nil {
		return 0, false // removed meanwhile
	}
	b, err := im.manifest(name, to)
	if err != nil || a.Cell != b.Cell {
		return 0, err == nil
	}
	n := 0
	for _, r := range manifest.TouchedCells(b.Used(), b.Cell) {
		for c := r.First; c < r.First+r.Count; c++ {
			theirs, ok := b.PieceOf(c)
			if !ok {
				continue
			}
			if ours, ok := a.PieceOf(c); ok && a.PieceSHA256(ours) == b.PieceSHA256(theirs) {
				n++
			}
		}
	}
	return n, true
}

func (im *images) manifest(name, version string) (*manifest.Manifest, error) {
	v, err := im.lib.Get(name, version)
	if err != nil {
		return nil, err
	}
	return v.Manifest(), v.Close()
}
