// Package btrfs reads the used map of a Btrfs filesystem on one disk: the chunks it has allocated, without what its
// free-space tree lists as free inside them. A filesystem without that tree counts its chunks whole.
//
// Every block is read with its checksum, place and generation checked. Package fsmap calls it.
// Layouts: the kernel's include/uapi/linux/btrfs_tree.h; all numbers are little-endian.
package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	superAt   = 64 << 10
	superLen  = 4096
	reserved  = 1 << 20 // never allocated, holds boot loaders
	headerLen = 101     // of a tree block
)

// superCopies are the places of the superblock and its copies.
var superCopies = []int64{superAt, 64 << 20, 256 << 30}

// Features.
const (
	// backrefs subvolume mixed-groups lzo zstd big-metadata iref raid56 skinny no-holes metadata-uuid raid1c34
	// simple-quota; not zoned, extent-tree-v2, raid-stripe-tree
	incompatKnown   = 0xfff | 0x10000
	incompatAltUUID = 0x400
	// free-space-tree, its valid mark, verity, block-group-tree
	roKnown          = 0xf
	roFreeSpaceTree  = 0x1
	roFreeSpaceValid = 0x2
	flagsChangingID  = 3 << 35
)

type super struct {
	r                   io.ReaderAt
	size, used          int64 // of the device; bytes that its chunks take
	content             int64 // bytes in use inside the chunks
	sector, node        int64
	devices, devID      int64
	csum                uint16
	fsid, treeID        []byte
	generation          uint64
	root, chunkRoot     treeRoot
	logRoot             uint64
	flags, incompat, ro uint64
	sysChunks           []byte
	chunks              []chunk // ascending by logical address
}

// treeRoot says where a tree begins.
type treeRoot struct {
	at, generation uint64
	level          byte
}

// Is tells whether the start of a partition, of at least 65 KiB, holds Btrfs' magic.
func Is(b []byte) bool {
	return len(b) >= superAt+1024 && bytes.Equal(b[superAt+64:superAt+72], []byte("_BHRfS_M"))
}

// Used reads the used map. r spans the partition of size bytes. It returns scan.SpanError for a filesystem on several
// disks, scan.ErrUnsupported for a form it does not know and scan.ErrCorrupt for tables that contradict each other;
// FS, UUID, Label and State are filled then too, as far as known. A filesystem that is not clean has no extents.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "btrfs", Kind: "reader"}
	b, err := scan.Read(r, superAt, superLen)
	if err != nil {
		return um, fmt.Errorf("read Btrfs superblock: %w", err)
	}
	um.UUID, um.Label = manifest.UUIDText(b[32:48]), manifest.CleanText(b[299:555])
	s, err := parseSuper(r, b)
	if err != nil {
		return um, err
	}
	if s.devices != 1 {
		return um, &scan.SpanError{FS: "btrfs", Devices: s.devices}
	}
	um.Size = s.size
	if um.Size > size {
		return um, fmt.Errorf("filesystem of %d bytes in a partition of %d: %w", um.Size, size, scan.ErrCorrupt)
	}
	um.State = manifest.StateClean
	switch {
	case s.logRoot != 0:
		um.State, um.Why = manifest.StateDirty, "it was not unmounted: its log tree waits to be replayed; mount and unmount it once"
		return um, nil
	case s.flags&flagsChangingID != 0:
		um.State, um.Why = manifest.StateDirty, "a change of its UUID was interrupted: run btrfstune again"
		return um, nil
	}
	if err := s.readChunks(); err != nil {
		return um, err
	}
	um.Extents, err = s.extents()
	return um, err
}

func parseSuper(r io.ReaderAt, b []byte) (*super, error) {
	s := &super{
		r: r, size: int64(le.Uint64(b[209:])), used: int64(le.Uint64(b[217:])), content: int64(le.Uint64(b[120:])),
		sector: int64(le.Uint32(b[144:])), node: int64(le.Uint32(b[148:])),
		devices: int64(le.Uint64(b[136:])), devID: int64(le.Uint64(b[201:])), csum: le.Uint16(b[196:]),
		fsid: b[32:48], treeID: b[32:48], generation: le.Uint64(b[72:]),
		root: treeRoot{le.Uint64(b[80:]), le.Uint64(b[72:]), b[198]}, chunkRoot: treeRoot{le.Uint64(b[88:]), le.Uint64(b[164:]), b[199]},
		logRoot: le.Uint64(b[96:]), flags: le.Uint64(b[56:]), ro: le.Uint64(b[180:]), incompat: le.Uint64(b[188:]),
	}
	if s.incompat&incompatAltUUID != 0 {
		s.treeID = b[571:587]
	}
	n := int64(le.Uint32(b[160:]))
	pow2 := func(n int64) bool { return n >= 4096 && n <= 65536 && n&(n-1) == 0 }
	switch {
	case !bytes.Equal(b[64:72], []byte("_BHRfS_M")) || le.Uint64(b[48:]) != superAt:
		return nil, fmt.Errorf("btrfs superblock: magic or place: %w", scan.ErrCorrupt)
	case s.csum != 0 && s.csum != 2:
		return nil, fmt.Errorf("btrfs with checksums of kind %d (xxhash64 and blake2b are not read): %w", s.csum, scan.ErrUnsupported)
	case !s.sumOK(b):
		return nil, fmt.Errorf("btrfs superblock at byte %d: wrong checksum: %w", superAt, scan.ErrCorrupt)
	case s.incompat&^incompatKnown != 0 || s.ro&^roKnown != 0:
		return nil, fmt.Errorf("btrfs feature bits 0x%x, read-only 0x%x: %w", s.incompat&^incompatKnown, s.ro&^roKnown, scan.ErrUnsupported)
	case !pow2(s.sector), !pow2(s.node), s.node < s.sector, s.devices < 1,
		s.size <= 0 || s.size > manifest.MaxDisk, s.used < 0 || s.used > s.size, s.content < 0, n > 2048:
		return nil, fmt.Errorf("btrfs superblock: impossible sizes: %w", scan.ErrCorrupt)
	}
	s.sysChunks = b[811 : 811+n]
	return s, nil
}

// sumOK checks the checksum in the first 32 bytes of a superblock or tree block.
func (s *super) sumOK(b []byte) bool {
	if s.csum == 0 {
		return crc32.Checksum(b[32:], castagnoli) == le.Uint32(b)
	}
	sum := sha256.Sum256(b[32:])
	return bytes.Equal(sum[:], b[:32])
}

// extents returns what the chunks take, less what is free inside them, and what stands outside of all chunks.
func (s *super) extents() ([]manifest.Extent, error) {
	var b scan.Builder
	b.Add(0, min(reserved, s.size))
	for _, off := range superCopies {
		b.Add(off, superLen) // clipped where the device ends before it
	}
	free := &freeWalk{super: s, b: &b}
	if s.ro&roFreeSpaceTree != 0 && s.ro&roFreeSpaceValid != 0 {
		if err := free.run(); err != nil {
			return nil, fmt.Errorf("btrfs free-space tree: %w", err)
		}
	}
	for _, c := range s.chunks[free.done:] { // all, or those behind the last block group of the tree
		c.addUsed(&b, nil)
	}
	return b.Finish(s.size), nil
}

// chunk is a range of logical addresses and the places on the disk that hold it, each of the same length.
type chunk struct {
	logical, length int64
	stripes         []int64
}

// addUsed adds the chunk's bytes without the given free ranges of logical addresses, which ascend and lie in it.
func (c *chunk) addUsed(b *scan.Builder, free []manifest.Extent) {
	for _, at := range c.stripes {
		pos := c.logical
		for _, f := range free {
			b.Add(at+pos-c.logical, f.Off-pos)
			pos = f.End()
		}
		b.Add(at+pos-c.logical, c.logical+c.length-pos)
	}
}

// maxChunks limits the chunks of one filesystem: 64 TiB of 256 MiB each.
const maxChunks = 1 << 18

// readChunks reads the chunk tree, with the help of the system chunks that the superblock lists.
func (s *super) readChunks() error {
	for b := s.sysChunks; len(b) > 0; {
		if len(b) < 17+48 {
			return fmt.Errorf("btrfs superblock: system chunks are cut off: %w", scan.ErrCorrupt)
		}
		k := parseKey(b)
		n := 48 + 32*int(le.Uint16(b[17+44:]))
		if k.kind != kindChunk || len(b) < 17+n {
			return fmt.Errorf("btrfs superblock: system chunk of type %d and %d bytes: %w", k.kind, n, scan.ErrCorrupt)
		}
		if err := s.addChunk(k, b[17:17+n]); err != nil {
			return err
		}
		b = b[17+n:]
	}
	if err := s.sortChunks(); err != nil {
		return err
	}
	var all []chunk
	boot := s.chunks
	err := s.walk(s.chunkRoot, key{}, func(k key, data []byte) (bool, error) {
		if k.kind != kindChunk {
			return true, nil
		}
		s.chunks = all
		err := s.addChunk(k, data)
		all, s.chunks = s.chunks, boot // blocks of this tree are found by the system chunks alone
		return true, err
	})
	if err != nil {
		return fmt.Errorf("btrfs chunk tree: %w", err)
	}
	s.chunks = all
	if err := s.sortChunks(); err != nil {
		return err
	}
	total := int64(0)
	for _, c := range s.chunks {
		total += c.length * int64(len(c.stripes))
	}
	if total != s.used {
		return fmt.Errorf("btrfs chunk tree: its chunks take %d bytes, the device counts %d: %w", total, s.used, scan.ErrCorrupt)
	}
	return nil
}

// addChunk checks a chunk item and appends it.
func (s *super) addChunk(k key, b []byte) error {
	bad := func(what string, n any) error {
		return fmt.Errorf("btrfs chunk at logical %d: %s %v: %w", k.offset, what, n, scan.ErrCorrupt)
	}
	if len(b) < 48 {
		return bad("length", len(b))
	}
	n := int(le.Uint16(b[44:]))
	c := chunk{logical: int64(k.offset), length: int64(le.Uint64(b))}
	switch {
	case n == 0 || len(b) != 48+32*n:
		return bad("stripes", n)
	case c.logical < 0 || c.length <= 0 || c.length > s.size || c.logical > 1<<62 || c.logical%s.sector != 0 || c.length%s.sector != 0:
		return bad("size", c.length)
	case len(s.chunks) >= maxChunks:
		return fmt.Errorf("btrfs with more than %d chunks: %w", maxChunks, scan.ErrUnsupported)
	}
	// On one disk a chunk is there once or twice as it is; striping spreads it, so its addresses need more than this.
	const dup, raid0, spread = 0x20, 0x8, 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400
	if kind := le.Uint64(b[24:]); kind&spread != 0 || (n > 1 && (kind&dup == 0 || n > 2)) || (kind&raid0 != 0 && n > 1) {
		return fmt.Errorf("btrfs chunk at logical %d of type 0x%x with %d stripes: %w", k.offset, kind, n, scan.ErrUnsupported)
	}
	for i := range n {
		x := b[48+32*i:]
		dev, at := int64(le.Uint64(x)), int64(le.Uint64(x[8:]))
		if dev != s.devID {
			return bad("device", dev)
		}
		if at < 0 || at%s.sector != 0 || at > s.size-c.length {
			return bad("place on the disk", at)
		}
		c.stripes = append(c.stripes, at)
	}
	s.chunks = append(s.chunks, c)
	return nil
}

// sortChunks puts the chunks in the order of their addresses and refuses overlaps.
func (s *super) sortChunks() error {
	slices.SortFunc(s.chunks, func(a, b chunk) int { return int(min(max(a.logical-b.logical, -1), 1)) })
	for i := 1; i < len(s.chunks); i++ {
		if p := s.chunks[i-1]; p.logical+p.length > s.chunks[i].logical {
			return fmt.Errorf("btrfs chunks overlap at logical %d: %w", s.chunks[i].logical, scan.ErrCorrupt)
		}
	}
	return nil
}
