package ext

import (
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

// groupDesc is a group descriptor; block numbers, and the clusters that its bitmap leaves free.
type groupDesc struct {
	blockBitmap, inodeBitmap, inodeTable int64
	free                                 int64
	uninit                               bool
}

func (s *super) desc(d []byte) groupDesc {
	g := groupDesc{int64(le.Uint32(d)), int64(le.Uint32(d[4:])), int64(le.Uint32(d[8:])), int64(le.Uint16(d[12:])), false}
	if s.incompat&incompat64Bit != 0 && s.descSize >= 64 {
		g.blockBitmap |= int64(le.Uint32(d[32:])) << 32
		g.inodeBitmap |= int64(le.Uint32(d[36:])) << 32
		g.inodeTable |= int64(le.Uint32(d[40:])) << 32
		g.free |= int64(le.Uint16(d[44:])) << 16
	}
	// The flag counts only when descriptors are checksummed; older kernels left rubbish there.
	g.uninit = s.ro&(roGDTChecksum|roMetadataCsum) != 0 && le.Uint16(d[18:])&groupBlockUninit != 0
	return g
}

// descBlock returns where block i of the group descriptors is: behind the superblock or, under meta_bg, in the first
// of the groups that it describes (ext2fs_descriptor_block_loc2).
func (s *super) descBlock(i int64) int64 {
	if s.firstMetaBG < 0 || i < s.firstMetaBG {
		return s.superBlock() + 1 + i
	}
	g := i * (s.block / s.descSize)
	block := s.first + g*s.perGroup
	if s.hasSuper(g) {
		block++
		if g == 0 {
			block = s.superBlock() + 1
		}
	}
	return block
}

// addFixed adds the superblock copy and the descriptors of a group, which a group without bitmap has as well.
func (s *super) addFixed(b *scan.Builder, g, start, count int64) {
	perBlock := s.block / s.descSize
	old := (s.groups + perBlock - 1) / perBlock
	if s.firstMetaBG >= 0 {
		old = min(old, s.firstMetaBG)
	}
	at := start
	if s.hasSuper(g) {
		if g == 0 {
			at = s.superBlock()
		}
		n := 1 + old + s.reservedGDT
		b.Add(at*s.block, min(n, start+count-at)*s.block)
		at++
	}
	// Each meta group holds its block of descriptors in its first, second and last group.
	if k := g % perBlock; s.firstMetaBG >= 0 && g/perBlock >= s.firstMetaBG && (k <= 1 || k == perBlock-1) {
		b.Add(at*s.block, min(1, start+count-at)*s.block)
	}
}

// extents returns what the bitmaps and the layout of all groups say.
func (s *super) extents(r io.ReaderAt) ([]manifest.Extent, error) {
	var b scan.Builder
	b.Add(0, (s.superBlock()+1)*s.block) // boot block and superblock
	bitmap := make([]byte, s.block)
	perBlock := s.block / s.descSize
	var descs []byte
	for g := range s.groups {
		if g%perBlock == 0 {
			var err error
			if descs, err = scan.Read(r, s.descBlock(g/perBlock)*s.block, int(s.block)); err != nil {
				return nil, fmt.Errorf("read ext group descriptors: %w", err)
			}
		}
		d := descs[g%perBlock*s.descSize:][:s.descSize]
		if !s.descOK(g, d) {
			return nil, fmt.Errorf("ext group %d: the checksum of its descriptor near byte %d is wrong: %w", g, s.descBlock(g/perBlock)*s.block, scan.ErrCorrupt)
		}
		if err := s.addGroup(r, &b, g, s.desc(d), bitmap); err != nil {
			return nil, err
		}
	}
	return b.Finish(s.blocks * s.block), nil
}

// addGroup adds one group. bitmap is a buffer of one block.
func (s *super) addGroup(r io.ReaderAt, b *scan.Builder, g int64, d groupDesc, bitmap []byte) error {
	start := s.first + g*s.perGroup
	count := min(s.perGroup, s.blocks-start)
	s.addFixed(b, g, start, count)
	inodeBlocks := (s.inodesPerGroup*s.inode + s.block - 1) / s.block
	for _, x := range [][2]int64{{d.blockBitmap, 1}, {d.inodeBitmap, 1}, {d.inodeTable, inodeBlocks}} {
		if x[0] <= 0 || x[0] > s.blocks-x[1] {
			return fmt.Errorf("ext group %d: metadata at block %d of %d: %w", g, x[0], s.blocks, scan.ErrCorrupt)
		}
		b.Add(x[0]*s.block, x[1]*s.block)
	}
	if d.uninit {
		return nil
	}
	if err := scan.Fill(r, d.blockBitmap*s.block, bitmap); err != nil {
		return fmt.Errorf("read ext block bitmap of group %d: %w", g, err)
	}
	ratio := s.cluster / s.block
	clusters := (count + ratio - 1) / ratio
	used := int64(0)
	scan.Runs(bitmap, clusters, func(first, n int64) {
		used += n
		b.Add((start+first*ratio)*s.block, min(n*ratio, count-first*ratio)*s.block)
	})
	// The descriptor counts what the bitmap shows. If they differ one of them is wrong, and it may be the bitmap.
	if free := clusters - used; free != d.free {
		return fmt.Errorf("ext group %d: its bitmap at byte %d leaves %d clusters free, its descriptor says %d: %w",
			g, d.blockBitmap*s.block, free, d.free, scan.ErrCorrupt)
	}
	return nil
}
