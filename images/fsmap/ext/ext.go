// Package ext reads the used map of an ext2, ext3 or ext4 filesystem from its block bitmaps.
//
// Groups marked BLOCK_UNINIT have no bitmap on disk, so the fixed metadata of every group is computed as well. It
// does not look at files and replays no journal. Package fsmap calls it.
package ext

import (
	"encoding/binary"
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var le = binary.LittleEndian

// Magic is s_magic, at byte 56 of the superblock, which stands at byte 1024.
const Magic = 0xEF53

// Feature bits, as in the kernel's fs/ext4/ext4.h.
const (
	compatHasJournal  = 0x4
	compatSparseSuper = 0x200 // sparse_super2

	incompatRecover    = 0x4
	incompatJournalDev = 0x8
	incompatMetaBG     = 0x10
	incompat64Bit      = 0x80
	incompatCsumSeed   = 0x2000
	// filetype recover meta_bg extents 64bit mmp flex_bg ea_inode dirdata csum_seed largedir inline_data encrypt casefold
	incompatKnown = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000

	roSparseSuper   = 0x1
	roGDTChecksum   = 0x10
	roBigalloc      = 0x200
	roMetadataCsum  = 0x400
	roOrphanPresent = 0x10000
	// sparse_super large_file huge_file gdt_csum dir_nlink extra_isize quota bigalloc metadata_csum read-only project
	// verity orphan_present; not the snapshots of a fork, which own blocks in ways of their own
	roKnown = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x8000 | 0x10000

	groupBlockUninit = 0x2
)

type super struct {
	block, cluster           int64 // bytes
	blocks, first, perGroup  int64 // blocks
	groups, descSize         int64
	inodesPerGroup, inode    int64
	reservedGDT              int64
	firstMetaBG              int64 // blocks of descriptors in the old place; -1 = all
	compat, incompat, ro     uint32
	state                    uint16
	lastOrphan, journalInode uint32
	backupGroups             [2]int64 // sparse_super2
	uuid, label              string
	seed                     uint32 // of the descriptors' checksums
}

// Used reads the used map. r spans the partition of size bytes. It returns scan.ErrUnsupported for a form it does not
// know and scan.ErrCorrupt for contradicting tables; FS, UUID, Label and State are filled then too, as far as known.
// A filesystem that is not clean has no extents.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "ext4", Kind: "reader"}
	sb, err := scan.Read(r, 1024, 1024)
	if err != nil {
		return um, fmt.Errorf("read ext superblock: %w", err)
	}
	s, err := parseSuper(sb)
	if err != nil {
		return um, fmt.Errorf("read ext superblock: %w", err)
	}
	um.FS, um.UUID, um.Label, um.Size = s.kind(), s.uuid, s.label, s.blocks*s.block
	um.State = manifest.StateClean
	if um.Why = s.unclean(); um.Why != "" {
		um.State = manifest.StateDirty
	}
	// s_checksum covers everything before it.
	if s.ro&roMetadataCsum != 0 && crc32c(0xffffffff, sb[:1020]) != le.Uint32(sb[1020:]) {
		return um, fmt.Errorf("ext superblock: the checksum at byte %d is wrong: %w", 1024+1020, scan.ErrCorrupt)
	}
	if err := s.supported(); err != nil {
		return um, err
	}
	if um.Size > size {
		return um, fmt.Errorf("filesystem of %d bytes in a partition of %d: %w", um.Size, size, scan.ErrCorrupt)
	}
	if um.State != manifest.StateClean {
		return um, nil // its journal may have given away blocks that the bitmaps still call free
	}
	um.Extents, err = s.extents(r)
	return um, err
}

func parseSuper(sb []byte) (*super, error) {
	if le.Uint16(sb[56:]) != Magic {
		return nil, fmt.Errorf("wrong magic: %w", scan.ErrCorrupt)
	}
	logBlock, logCluster := le.Uint32(sb[24:]), le.Uint32(sb[28:])
	if logBlock > 6 || logCluster > 20 {
		return nil, fmt.Errorf("block size 2^(10+%d): %w", logBlock, scan.ErrCorrupt)
	}
	s := &super{
		block: 1024 << logBlock, cluster: 1024 << logCluster,
		blocks: int64(le.Uint32(sb[4:])), first: int64(le.Uint32(sb[20:])), perGroup: int64(le.Uint32(sb[32:])),
		inodesPerGroup: int64(le.Uint32(sb[40:])), inode: int64(le.Uint16(sb[88:])), descSize: 32,
		reservedGDT: int64(le.Uint16(sb[206:])), firstMetaBG: -1, state: le.Uint16(sb[58:]),
		compat: le.Uint32(sb[92:]), incompat: le.Uint32(sb[96:]), ro: le.Uint32(sb[100:]),
		lastOrphan: le.Uint32(sb[232:]), journalInode: le.Uint32(sb[224:]),
		backupGroups: [2]int64{int64(le.Uint32(sb[0x24c:])), int64(le.Uint32(sb[0x250:]))},
		uuid:         manifest.UUIDText(sb[104:120]), label: manifest.CleanText(sb[120:136]),
	}
	if le.Uint32(sb[76:]) == 0 { // revision 0 has fixed inodes and no features
		s.inode, s.compat, s.incompat, s.ro, s.reservedGDT = 128, 0, 0, 0, 0
	}
	if s.incompat&incompatMetaBG != 0 {
		s.firstMetaBG = int64(le.Uint32(sb[260:]))
	}
	s.setSeed(sb)
	if s.ro&roBigalloc == 0 {
		s.cluster = s.block
	}
	if s.incompat&incompat64Bit != 0 {
		s.blocks |= int64(le.Uint32(sb[0x150:])) << 32
		s.descSize = int64(le.Uint16(sb[254:]))
	}
	return s, s.check()
}

func (s *super) check() error {
	bitsPerBlock := 8 * s.block
	switch {
	case s.cluster < s.block,
		s.blocks <= 0 || s.blocks > manifest.MaxDisk/s.block,
		s.first > 1 || s.first >= s.blocks,
		// One bitmap block describes one group of whole clusters.
		s.perGroup < 256 || s.perGroup > bitsPerBlock*(s.cluster/s.block) || s.perGroup%(s.cluster/s.block) != 0,
		s.descSize < 32 || s.descSize > s.block || s.descSize&(s.descSize-1) != 0,
		s.inode < 128 || s.inode > s.block || s.inode&(s.inode-1) != 0,
		s.inodesPerGroup <= 0 || s.inodesPerGroup > bitsPerBlock:
		return fmt.Errorf("impossible sizes: %w", scan.ErrCorrupt)
	}
	s.groups = (s.blocks - s.first + s.perGroup - 1) / s.perGroup
	return nil
}

func (s *super) kind() string {
	switch {
	case s.incompat&^(0x2|incompatRecover) != 0 || s.ro&^0x7 != 0:
		return "ext4"
	case s.compat&compatHasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// unclean says why the filesystem was not left in order; "" when it was.
func (s *super) unclean() string {
	switch {
	case s.incompat&incompatRecover != 0:
		return "its journal holds changes that are not written yet (mounted, or not unmounted)"
	case s.state&1 == 0:
		return "it is mounted or was not unmounted"
	case s.state&2 != 0:
		return "the kernel found errors in it: run e2fsck"
	case s.ro&roOrphanPresent != 0 || (s.lastOrphan != 0 && s.compat&compatHasJournal != 0):
		return "deleted files still wait for clean-up (orphan list): run e2fsck"
	}
	return ""
}

func (s *super) supported() error {
	switch {
	case s.incompat&incompatJournalDev != 0:
		return fmt.Errorf("external journal: %w", scan.ErrUnsupported)
	case s.incompat&^incompatKnown != 0:
		return fmt.Errorf("feature bits 0x%x: %w", s.incompat&^incompatKnown, scan.ErrUnsupported)
	case s.ro&^roKnown != 0:
		return fmt.Errorf("read-only feature bits 0x%x: %w", s.ro&^roKnown, scan.ErrUnsupported)
	case s.compat&compatHasJournal != 0 && s.journalInode == 0:
		return fmt.Errorf("external journal: %w", scan.ErrUnsupported)
	}
	return nil
}

// superBlock returns the block of the primary superblock. It stands at byte 1024; with 1 KiB blocks that is block 1,
// also under bigalloc, where group 0 starts with block 0 all the same (ext2fs_open2 has the same exception).
func (s *super) superBlock() int64 { return 1024 / s.block }

// hasSuper tells whether a group starts with a superblock copy and the group descriptors.
func (s *super) hasSuper(g int64) bool {
	switch {
	case g == 0:
		return true
	case s.compat&compatSparseSuper != 0:
		return g == s.backupGroups[0] || g == s.backupGroups[1]
	case s.ro&roSparseSuper == 0 || g == 1:
		return true
	}
	for _, p := range []int64{3, 5, 7} {
		x := p
		for x < g {
			x *= p
		}
		if x == g {
			return true
		}
	}
	return false
}
