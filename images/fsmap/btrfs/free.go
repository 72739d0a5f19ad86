package btrfs

import (
	"fmt"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

// maxFree limits the free ranges kept of one chunk; what goes beyond counts as used.
const maxFree = 1 << 18

// freeWalk goes through the free-space tree, which has the block groups (each is one chunk) in ascending order.
type freeWalk struct {
	*super
	b    *scan.Builder
	done int // chunks that are told

	open        bool // inside a block group: chunks[done]
	skip        bool // inside one that no chunk belongs to
	bitmaps     bool
	want, count uint32 // free ranges that the group says it has, and found
	free        []manifest.Extent
	pos         int64 // end of the last free range
	total       int64 // free bytes in all groups
}

// run finds the tree in the root tree and adds the used bytes of every chunk that it knows of.
func (w *freeWalk) run() error {
	var root treeRoot
	from := key{freeSpaceTree, kindRoot, 0}
	err := w.walk(w.root, from, func(k key, b []byte) (bool, error) {
		if k.object == from.object && k.kind == from.kind && len(b) >= 239 {
			root = treeRoot{le.Uint64(b[176:]), le.Uint64(b[160:]), b[238]}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("root tree: %w", err)
	}
	if root.at == 0 {
		return fmt.Errorf("the root tree does not name it: %w", scan.ErrCorrupt)
	}
	if err := w.walk(root, key{}, w.item); err != nil {
		return err
	}
	if err := w.closeGroup(); err != nil {
		return err
	}
	allocated := int64(0)
	for _, c := range w.chunks {
		allocated += c.length
	}
	if allocated-w.total < w.content {
		return fmt.Errorf("it lists %d of %d bytes as free, but %d are in use: %w", w.total, allocated, w.content, scan.ErrCorrupt)
	}
	return nil
}

// item takes one item: the start of a block group, a free range, or a bitmap with a bit for each free sector.
func (w *freeWalk) item(k key, b []byte) (bool, error) {
	off, n := int64(k.object), int64(k.offset)
	bad := func(what string) error {
		return fmt.Errorf("item of type %d at logical %d, %d bytes: %s: %w", k.kind, off, n, what, scan.ErrCorrupt)
	}
	switch k.kind {
	case kindFreeInfo:
		if err := w.closeGroup(); err != nil {
			return false, err
		}
		for w.done < len(w.chunks) && w.chunks[w.done].logical < off {
			w.chunks[w.done].addUsed(w.b, nil) // a chunk the tree does not know
			w.done++
		}
		// mkfs.btrfs leaves entries behind of a group that it made for itself and removed. What is free there counts for
		// no chunk.
		if w.skip = w.done == len(w.chunks) || w.chunks[w.done].logical != off; w.skip {
			return true, nil
		}
		if w.chunks[w.done].length != n || len(b) < 8 {
			return false, bad("its chunk is of another size")
		}
		w.open, w.want, w.count, w.bitmaps = true, le.Uint32(b), 0, le.Uint32(b[4:])&1 != 0
		w.pos = off
		return true, nil
	case kindFreeExtent, kindFreeBitmap:
	default:
		return false, bad("unknown type")
	}
	if w.skip {
		return true, nil
	}
	if !w.open || w.bitmaps != (k.kind == kindFreeBitmap) {
		return false, bad("out of place")
	}
	if c := w.chunks[w.done]; off < w.pos || n <= 0 || n > c.length || off > c.logical+c.length-n || off%w.sector != 0 || n%w.sector != 0 {
		return false, bad("outside its block group, or out of order")
	}
	if k.kind == kindFreeExtent {
		w.add(off, n)
		return true, nil
	}
	if int64(len(b))*8*w.sector < n {
		return false, bad(fmt.Sprintf("bitmap of %d bytes", len(b)))
	}
	scan.Runs(b, n/w.sector, func(first, count int64) { w.add(off+first*w.sector, count*w.sector) })
	return true, nil
}

// add takes a free range. One that goes on where the last one ended, in the next bitmap, is the same one.
func (w *freeWalk) add(off, n int64) {
	w.total += n
	if w.count > 0 && w.bitmaps && w.pos == off {
		if k := len(w.free); k > 0 && w.free[k-1].End() == off {
			w.free[k-1].Len += n
		}
		w.pos = off + n
		return
	}
	w.count++
	w.pos = off + n
	if len(w.free) < maxFree {
		w.free = append(w.free, manifest.Extent{Off: off, Len: n})
	}
}

// closeGroup adds the used bytes of the block group that ends here.
func (w *freeWalk) closeGroup() error {
	if !w.open {
		return nil
	}
	c := &w.chunks[w.done]
	if w.count != w.want {
		return fmt.Errorf("block group at logical %d: %d free ranges, it counts %d: %w", c.logical, w.count, w.want, scan.ErrCorrupt)
	}
	c.addUsed(w.b, w.free)
	w.done++
	w.open, w.free = false, w.free[:0]
	return nil
}
