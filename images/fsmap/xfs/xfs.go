// Package xfs reads the used map of an XFS filesystem: everything that the free-space btree of its allocation group
// does not list as free. Superblock copies, group headers, the journal and the groups' free lists are thus always in.
//
// It knows versions 4 and 5 and checks the checksums of the latter. It replays no journal. Package fsmap calls it.
// Layouts: the kernel's fs/xfs/libxfs/xfs_format.h and xfs_log_format.h; all numbers are big-endian.
package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var be = binary.BigEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Features of version 5.
const (
	// ftype sparse-inodes meta_uuid bigtime needsrepair nrext64 exchange-range parent metadir; not zoned
	incompatKnown       = 0x1ff
	incompatNeedsRepair = 0x10
	// free inode btree, reverse map btree, reflink, inode btree counters
	roKnown = 0xf
)

// Where the checksum of a structure is; it is little-endian, of the whole sector or block with itself as zero.
const (
	sbCRC    = 224
	agfCRC   = 216
	blockCRC = 52
)

type super struct {
	block, sector    int64 // bytes
	blocks, agBlocks int64
	groups           int64
	agLog            uint // log2 of a group's blocks, rounded up: where a block number has its group
	v5               bool
	logStart, logLen int64 // blocks; the start in the form group << agLog | block, 0 = another device
	realtime         int64 // blocks on the realtime device
	incompat, ro     uint32
	inProgress       bool
	uuid, label      string
}

// Is tells whether a partition starts with XFS's magic.
func Is(b []byte) bool { return bytes.HasPrefix(b, []byte("XFSB")) }

// Used reads the used map. r spans the partition of size bytes. It returns scan.ErrUnsupported for a form it does not
// know and scan.ErrCorrupt for tables that contradict each other; FS, UUID, Label and State are filled then too, as
// far as known. A filesystem that is not clean has no extents.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "xfs", Kind: "reader"}
	b, err := scan.Read(r, 0, 512)
	if err != nil {
		return um, fmt.Errorf("read XFS superblock: %w", err)
	}
	s, err := parseSuper(r, b)
	if s != nil {
		um.UUID, um.Label = s.uuid, s.label
	}
	if err != nil {
		return um, err
	}
	um.Size = s.blocks * s.block
	if um.Size > size {
		return um, fmt.Errorf("filesystem of %d bytes in a partition of %d: %w", um.Size, size, scan.ErrCorrupt)
	}
	if err := s.supported(); err != nil {
		return um, err
	}
	um.State = manifest.StateClean
	if um.Why, err = s.unclean(r); err != nil {
		return um, err
	}
	if um.Why != "" {
		um.State = manifest.StateDirty
		return um, nil // its journal may have given away blocks that the btrees still call free
	}
	um.Extents, err = s.extents(r)
	return um, err
}

func parseSuper(r io.ReaderAt, b []byte) (*super, error) {
	if !Is(b) {
		return nil, fmt.Errorf("XFS superblock: magic %x: %w", b[:4], scan.ErrCorrupt)
	}
	s := &super{
		block: int64(be.Uint32(b[4:])), sector: int64(be.Uint16(b[102:])), agBlocks: int64(be.Uint32(b[84:])), groups: int64(be.Uint32(b[88:])),
		agLog: uint(b[124]), logStart: int64(be.Uint64(b[48:])), logLen: int64(be.Uint32(b[96:])), realtime: int64(be.Uint64(b[16:])),
		inProgress: b[126] != 0, uuid: manifest.UUIDText(b[32:48]), label: manifest.CleanText(b[108:120]),
	}
	pow2 := func(n, low, high int64) bool { return n >= low && n <= high && n&(n-1) == 0 }
	blocks := be.Uint64(b[8:])
	version := be.Uint16(b[100:]) & 15
	switch {
	case version != 4 && version != 5:
		return s, fmt.Errorf("XFS version %d: %w", version, scan.ErrUnsupported)
	case !pow2(s.block, 512, 65536), !pow2(s.sector, 512, 32768), s.sector > s.block,
		blocks == 0 || blocks > uint64(manifest.MaxDisk/s.block),
		s.agBlocks < 64 || s.agBlocks*s.block < 8*s.sector || s.agLog > 31 || s.agBlocks > 1<<s.agLog,
		s.logStart < 0 || s.realtime < 0:
		return s, fmt.Errorf("XFS superblock: impossible sizes: %w", scan.ErrCorrupt)
	}
	s.blocks, s.v5 = int64(blocks), version == 5
	if s.groups != (s.blocks+s.agBlocks-1)/s.agBlocks {
		return s, fmt.Errorf("XFS superblock: %d groups of %d blocks for %d blocks: %w", s.groups, s.agBlocks, s.blocks, scan.ErrCorrupt)
	}
	if s.v5 {
		s.ro, s.incompat = be.Uint32(b[212:]), be.Uint32(b[216:])
		full, err := scan.Read(r, 0, int(s.sector))
		if err != nil {
			return s, fmt.Errorf("read XFS superblock: %w", err)
		}
		if !crcOK(full, sbCRC) {
			return s, fmt.Errorf("XFS superblock: the checksum at byte %d is wrong: %w", sbCRC, scan.ErrCorrupt)
		}
	}
	return s, nil
}

// crcOK checks the CRC-32C of a structure, stored at byte at.
func crcOK(b []byte, at int) bool {
	crc := crc32.Update(0, castagnoli, b[:at])
	crc = crc32.Update(crc, castagnoli, []byte{0, 0, 0, 0})
	crc = crc32.Update(crc, castagnoli, b[at+4:])
	return crc == binary.LittleEndian.Uint32(b[at:])
}

func (s *super) supported() error {
	switch {
	case s.incompat&^incompatKnown != 0:
		return fmt.Errorf("XFS feature bits 0x%x: %w", s.incompat&^incompatKnown, scan.ErrUnsupported)
	case s.ro&^roKnown != 0:
		return fmt.Errorf("XFS read-only feature bits 0x%x: %w", s.ro&^roKnown, scan.ErrUnsupported)
	case s.realtime != 0:
		return fmt.Errorf("XFS with a realtime device: %w", scan.ErrUnsupported)
	case s.logStart == 0:
		return fmt.Errorf("XFS with its journal on another device: %w", scan.ErrUnsupported)
	}
	return nil
}

// groupLen is how many blocks group g has; the last one may be shorter.
func (s *super) groupLen(g int64) int64 { return min(s.agBlocks, s.blocks-g*s.agBlocks) }

// extents walks the free-space btrees of all groups.
func (s *super) extents(r io.ReaderAt) ([]manifest.Extent, error) {
	var b scan.Builder
	for g := range s.groups {
		w := &walk{super: s, r: r, used: &b, group: g, start: g * s.agBlocks, blocks: s.groupLen(g), buf: make([][]byte, maxLevels)}
		if err := w.run(); err != nil {
			return nil, fmt.Errorf("XFS group %d: %w", g, err)
		}
	}
	return b.Finish(s.blocks * s.block), nil
}
