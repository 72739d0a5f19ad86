package xfs

import (
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
)

// The journal counts in blocks of 512 bytes, whatever the sectors are.
const logBlock = 512

const (
	recordMagic   = 0xFEEDBABE
	recordV2      = 2        // h_version: headers may take several blocks
	cycleBytes    = 32 << 10 // of a record that one header block describes
	maxRecord     = 256<<10 + 8*logBlock
	unmountRecord = 0x20 // oh_flags
)

const whyLog = "its journal is not closed (mounted, or not unmounted): mount and unmount it once"

// journal is the log of a filesystem.
type journal struct {
	r         io.ReaderAt
	off, size int64 // bytes, log blocks
}

// unclean says why the filesystem was not left in order; "" when it was.
func (s *super) unclean(r io.ReaderAt) (string, error) {
	switch {
	case s.inProgress:
		return "mkfs.xfs or xfs_copy did not finish it", nil
	case s.incompat&incompatNeedsRepair != 0:
		return "it asks for a check: run xfs_repair", nil
	}
	group, block := s.logStart>>s.agLog, s.logStart&(1<<s.agLog-1)
	if group >= s.groups || s.logLen < 1 || block+s.logLen > s.groupLen(group) || s.logLen*s.block > 4<<30 {
		return "", fmt.Errorf("XFS journal of %d blocks at block %d of group %d: %w", s.logLen, block, group, scan.ErrCorrupt)
	}
	j := &journal{r: r, off: (group*s.agBlocks + block) * s.block, size: s.logLen * s.block / logBlock}
	closed, err := j.closed()
	if err != nil {
		return "", fmt.Errorf("read XFS journal: %w", err)
	}
	if !closed {
		return whyLog, nil
	}
	return "", nil
}

// closed tells whether the newest record is the one that unmounting writes, as xlog_find_tail does in the kernel. It
// does not look for records that were cut in the middle: whatever stands last and is no such record means no.
func (j *journal) closed() (bool, error) {
	head, err := j.head()
	if err != nil || head < 0 {
		return err == nil, err // never used
	}
	for back := int64(1); back <= min(maxRecord/logBlock, j.size); back++ {
		at := (head - back + j.size) % j.size
		h, err := j.read(at, 324)
		if err != nil {
			return false, err
		}
		if be.Uint32(h) != recordMagic {
			continue
		}
		version, length, ops, size := be.Uint32(h[8:]), int64(be.Uint32(h[12:])), be.Uint32(h[40:]), int64(be.Uint32(h[320:]))
		headers := int64(1)
		if version&recordV2 != 0 && size > cycleBytes {
			headers = (size + cycleBytes - 1) / cycleBytes
		}
		if headers+(length+logBlock-1)/logBlock != back || ops != 1 {
			return false, nil
		}
		op, err := j.read((at+headers)%j.size, 12) // transaction, length, client, flags
		return err == nil && op[9]&unmountRecord != 0, err
	}
	return false, nil
}

// head finds where the next record would go: the cycle number in each block drops there by one. -1 = never used.
func (j *journal) head() (int64, error) {
	first, err := j.cycle(0)
	if err != nil {
		return 0, err
	}
	last, err := j.cycle(j.size - 1)
	if err != nil || first == last {
		if first == 0 {
			return -1, err
		}
		return 0, err // the last record ends with the journal
	}
	low, high := int64(0), j.size-1 // cycle(low) != last == cycle(high)
	for high-low > 1 {
		mid := (low + high) / 2
		c, err := j.cycle(mid)
		if err != nil {
			return 0, err
		}
		if c == last {
			high = mid
		} else {
			low = mid
		}
	}
	return high, nil
}

// cycle is the number of the pass over the journal in which a block was written.
func (j *journal) cycle(block int64) (uint32, error) {
	b, err := j.read(block, 8)
	if err != nil {
		return 0, err
	}
	if c := be.Uint32(b); c != recordMagic {
		return c, nil
	}
	return be.Uint32(b[4:]), nil
}

func (j *journal) read(block int64, n int) ([]byte, error) {
	return scan.Read(j.r, j.off+block*logBlock, n)
}
