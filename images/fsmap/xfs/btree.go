package xfs

import (
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
)

// maxLevels limits the height of a btree (XFS_BTREE_MAXLEVELS).
const maxLevels = 9

// walk goes through the by-block free-space btree of one allocation group. Block numbers count within the group.
type walk struct {
	*super
	r            io.ReaderAt
	used         *scan.Builder
	group, start int64 // number, first block on the disk
	blocks       int64 // length
	pos, free    int64 // every block before pos is told; free blocks seen
	buf          [][]byte
	headerLen    int64
	magic        string
}

// run reads the group's header and its btree. Used is what is not free, and the header's own count must agree.
func (w *walk) run() error {
	at := w.start*w.block + w.sector // the AGF is the second sector of the group
	b, err := scan.Read(w.r, at, int(w.sector))
	if err != nil {
		return fmt.Errorf("read AGF: %w", err)
	}
	bad := func(what string) error { return fmt.Errorf("AGF at byte %d: %s: %w", at, what, scan.ErrCorrupt) }
	levels, freeBlocks := int64(be.Uint32(b[28:])), int64(be.Uint32(b[52:]))
	switch {
	case string(b[:4]) != "XAGF" || be.Uint32(b[4:]) != 1:
		return bad("magic or version")
	case w.v5 && !crcOK(b, agfCRC):
		return bad("checksum")
	case int64(be.Uint32(b[8:])) != w.group:
		return bad("number of another group")
	case int64(be.Uint32(b[12:])) != w.blocks:
		return bad(fmt.Sprintf("%d blocks instead of %d", be.Uint32(b[12:]), w.blocks))
	case levels < 1 || levels > maxLevels:
		return bad(fmt.Sprintf("btree of %d levels", levels))
	}
	w.headerLen, w.magic = 16, "ABTB"
	if w.v5 {
		w.headerLen, w.magic = 56, "AB3B"
	}
	if err := w.node(int64(be.Uint32(b[16:])), levels-1, true); err != nil {
		return err
	}
	w.addUsed(w.blocks)
	if w.free != freeBlocks {
		return bad(fmt.Sprintf("it counts %d free blocks, its btree lists %d", freeBlocks, w.free))
	}
	return nil
}

// addUsed marks everything between the last free extent and block as used.
func (w *walk) addUsed(block int64) {
	w.used.Add((w.start+w.pos)*w.block, (block-w.pos)*w.block)
}

// node reads one block of the btree. Levels go down by one and free extents only forward, so it ends.
func (w *walk) node(block, level int64, root bool) error {
	at := (w.start + block) * w.block
	bad := func(what string) error {
		return fmt.Errorf("btree block at byte %d: %s: %w", at, what, scan.ErrCorrupt)
	}
	if block <= 0 || block >= w.blocks {
		return fmt.Errorf("btree block %d of %d: %w", block, w.blocks, scan.ErrCorrupt)
	}
	if w.buf[level] == nil {
		w.buf[level] = make([]byte, w.block)
	}
	b := w.buf[level]
	if err := scan.Fill(w.r, at, b); err != nil {
		return fmt.Errorf("read btree block: %w", err)
	}
	n := int64(be.Uint16(b[6:]))
	size := int64(8) // of a record; an inner block has keys of that size, then pointers of 4 bytes
	if level > 0 {
		size = 12
	}
	most := (w.block - w.headerLen) / size
	switch {
	case string(b[:4]) != w.magic:
		return bad("magic")
	case w.v5 && !crcOK(b, blockCRC):
		return bad("checksum")
	case w.v5 && (int64(be.Uint64(b[16:])) != at/512 || int64(be.Uint32(b[48:])) != w.group):
		return bad("it belongs elsewhere")
	case int64(be.Uint16(b[4:])) != level:
		return bad(fmt.Sprintf("level %d instead of %d", be.Uint16(b[4:]), level))
	case n > most || n == 0 && (!root || level > 0):
		return bad(fmt.Sprintf("%d records", n))
	}
	for i := range n {
		if level > 0 {
			if err := w.node(int64(be.Uint32(b[w.headerLen+most*8+i*4:])), level-1, false); err != nil {
				return err
			}
			continue
		}
		start, count := int64(be.Uint32(b[w.headerLen+i*8:])), int64(be.Uint32(b[w.headerLen+i*8+4:]))
		if start < w.pos || count == 0 || start+count > w.blocks {
			return bad(fmt.Sprintf("record %d: %d free blocks at %d", i, count, start))
		}
		w.addUsed(start)
		w.pos, w.free = start+count, w.free+count
	}
	return nil
}
