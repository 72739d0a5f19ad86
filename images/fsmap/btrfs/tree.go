package btrfs

import (
	"bytes"
	"cmp"
	"fmt"
	"sort"

	"labswarm/images/fsmap/scan"
)

// Kinds of items.
const (
	kindRoot       = 132
	kindFreeInfo   = 198
	kindFreeExtent = 199
	kindFreeBitmap = 200
	kindChunk      = 228
)

// freeSpaceTree is the object number of that tree's root.
const freeSpaceTree = 10

// key orders the items of a tree.
type key struct {
	object uint64
	kind   byte
	offset uint64
}

func parseKey(b []byte) key { return key{le.Uint64(b), b[8], le.Uint64(b[9:])} }

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.object, o.object), cmp.Compare(k.kind, o.kind), cmp.Compare(k.offset, o.offset))
}

// visitor gets the items of a tree in order and says whether to go on.
type visitor func(k key, data []byte) (bool, error)

// treeWalk is one pass over a tree.
type treeWalk struct {
	*super
	from  key
	visit visitor
	last  key
	any   bool // last is set
	stop  bool
	buf   [maxLevel + 1][]byte
}

// maxLevel is the level of the highest root (BTRFS_MAX_LEVEL - 1).
const maxLevel = 7

// walk visits the items of a tree from a key on. Keys only go up and levels only down, so it ends.
func (s *super) walk(root treeRoot, from key, visit visitor) error {
	if root.level > maxLevel {
		return fmt.Errorf("tree of %d levels: %w", root.level, scan.ErrCorrupt)
	}
	w := &treeWalk{super: s, from: from, visit: visit}
	return w.block(root, nil)
}

// block visits one tree block. first is the key that its parent has for it, nil for the root.
func (w *treeWalk) block(t treeRoot, first *key) error {
	b, err := w.readBlock(t)
	if err != nil {
		return err
	}
	bad := func(what string, n any) error {
		return fmt.Errorf("tree block at logical %d: %s %v: %w", t.at, what, n, scan.ErrCorrupt)
	}
	n, size := int(le.Uint32(b[96:])), 25 // key, offset, length of an item
	if t.level > 0 {
		size = 33 // key, place, generation of a block
	}
	if n > (len(b)-headerLen)/size || (n == 0 && (first != nil || t.level > 0)) {
		return bad("items", n)
	}
	for i := 0; i < n && !w.stop; i++ {
		e := b[headerLen+i*size:]
		k := parseKey(e)
		if i == 0 && first != nil && k != *first {
			return bad("first key", k)
		}
		if t.level > 0 {
			// What comes before the next block's first key and before the wanted one can be left out.
			if i+1 < n && parseKey(e[size:]).compare(w.from) <= 0 {
				continue
			}
			child := treeRoot{le.Uint64(e[17:]), le.Uint64(e[25:]), t.level - 1}
			if err := w.block(child, &k); err != nil {
				return err
			}
			continue
		}
		off, length := int64(le.Uint32(e[17:])), int64(le.Uint32(e[21:]))
		if headerLen+off+length > int64(len(b)) {
			return bad("item outside", i)
		}
		if w.any && k.compare(w.last) <= 0 {
			return bad("keys out of order at item", i)
		}
		w.last, w.any = k, true
		if k.compare(w.from) < 0 {
			continue
		}
		goOn, err := w.visit(k, b[headerLen+off:headerLen+off+length])
		if err != nil {
			return err
		}
		w.stop = !goOn
	}
	return nil
}

// readBlock reads a tree block into the buffer of its level, from the first place where it is whole.
func (w *treeWalk) readBlock(t treeRoot) ([]byte, error) {
	logical := int64(t.at)
	i := sort.Search(len(w.chunks), func(i int) bool { return w.chunks[i].logical+w.chunks[i].length > logical })
	if logical < 0 || i == len(w.chunks) || w.chunks[i].logical > logical || w.chunks[i].logical+w.chunks[i].length-w.node < logical {
		return nil, fmt.Errorf("tree block at logical %d is in no chunk: %w", t.at, scan.ErrCorrupt)
	}
	if w.buf[t.level] == nil {
		w.buf[t.level] = make([]byte, w.node)
	}
	b := w.buf[t.level]
	var bad error
	for _, at := range w.chunks[i].stripes {
		at += logical - w.chunks[i].logical
		if err := scan.Fill(w.r, at, b); err != nil {
			return nil, fmt.Errorf("read tree block: %w", err)
		}
		if bad = w.checkBlock(b, t, at); bad == nil {
			return b, nil
		}
	}
	return nil, bad
}

func (w *treeWalk) checkBlock(b []byte, t treeRoot, at int64) error {
	bad := func(what string) error {
		return fmt.Errorf("tree block at byte %d (logical %d): %s: %w", at, t.at, what, scan.ErrCorrupt)
	}
	switch {
	case !w.sumOK(b):
		return bad("wrong checksum")
	case !bytes.Equal(b[32:48], w.treeID):
		return bad("it belongs to another filesystem")
	case le.Uint64(b[48:]) != t.at:
		return bad("it belongs elsewhere")
	case le.Uint64(b[80:]) != t.generation:
		return bad(fmt.Sprintf("generation %d instead of %d", le.Uint64(b[80:]), t.generation))
	case b[100] != t.level:
		return bad(fmt.Sprintf("level %d instead of %d", b[100], t.level))
	}
	return nil
}
