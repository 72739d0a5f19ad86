package classroom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// usedFAT reads a FAT12/16/32 filesystem's allocation table (Microsoft FAT
// specification 1.03): used is everything before the data area and every cluster
// whose entry is not 0. It is written for CompareDisk only and shares nothing with
// images/fsmap, so that one mistake cannot hide in both.
func usedFAT(r io.ReaderAt, p span) ([]span, error) {
	var boot [512]byte
	if _, err := r.ReadAt(boot[:], p.from); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	u16 := func(off int) int64 { return int64(binary.LittleEndian.Uint16(boot[off:])) }
	u32 := func(off int) int64 { return int64(binary.LittleEndian.Uint32(boot[off:])) }
	sector, perCluster := u16(11), int64(boot[13])
	reserved, fats, rootEntries := u16(14), int64(boot[16]), u16(17)
	total, fatSectors := u16(19), u16(22)
	if total == 0 {
		total = u32(32)
	}
	if fatSectors == 0 {
		fatSectors = u32(36)
	}
	if sector < 512 || perCluster == 0 || fats == 0 || fatSectors == 0 || total == 0 {
		return nil, errors.New("boot sector makes no sense")
	}
	dataStart := reserved + fats*fatSectors + (rootEntries*32+sector-1)/sector
	clusters := (total - dataStart) / perCluster
	if clusters <= 0 {
		return nil, errors.New("boot sector leaves no room for data")
	}
	table := make([]byte, fatSectors*sector)
	if _, err := r.ReadAt(table, p.from+reserved*sector); err != nil {
		return nil, fmt.Errorf("read allocation table: %w", err)
	}
	entry := func(n int64) uint32 {
		switch {
		case clusters < 4085: // FAT12: 12 bits each
			v := binary.LittleEndian.Uint16(table[n*3/2:])
			if n%2 == 1 {
				return uint32(v >> 4)
			}
			return uint32(v & 0xfff)
		case clusters < 65525:
			return uint32(binary.LittleEndian.Uint16(table[n*2:]))
		default:
			return binary.LittleEndian.Uint32(table[n*4:]) & 0x0fffffff
		}
	}
	used := []span{{p.from, p.from + dataStart*sector}}
	for n := int64(2); n < clusters+2; n++ {
		if entry(n) == 0 {
			continue
		}
		from := p.from + (dataStart+(n-2)*perCluster)*sector
		to := from + perCluster*sector
		if last := &used[len(used)-1]; last.to == from {
			last.to = to
		} else {
			used = append(used, span{from, to})
		}
	}
	return used, nil
}
