package ext

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c continues a CRC-32C as ext4 uses it: without the inversions at both ends.
func crc32c(crc uint32, b []byte) uint32 { return ^crc32.Update(^crc, castagnoli, b) }

// crc16 continues a CRC-16 (polynomial 0x8005, reflected), which ext4 took before it had metadata_csum.
func crc16(crc uint16, b []byte) uint16 {
	for _, x := range b {
		crc ^= uint16(x)
		for range 8 {
			odd := crc & 1
			crc >>= 1
			if odd != 0 {
				crc ^= 0xA001
			}
		}
	}
	return crc
}

// setSeed computes what all descriptor checksums of this filesystem start from.
func (s *super) setSeed(sb []byte) {
	switch uuid := sb[104:120]; {
	case s.ro&roMetadataCsum == 0:
		s.seed = uint32(crc16(0xffff, uuid))
	case s.incompat&incompatCsumSeed != 0:
		s.seed = le.Uint32(sb[0x270:])
	default:
		s.seed = crc32c(0xffffffff, uuid)
	}
}

// descOK checks the checksum of group g's descriptor (ext4_group_desc_csum in the kernel).
func (s *super) descOK(g int64, d []byte) bool {
	const at = 0x1e // bg_checksum, 2 bytes
	number := le.AppendUint32(nil, uint32(g))
	switch {
	case s.ro&roMetadataCsum != 0:
		crc := crc32c(crc32c(s.seed, number), d[:at])
		crc = crc32c(crc32c(crc, []byte{0, 0}), d[at+2:])
		return uint16(crc) == le.Uint16(d[at:])
	case s.ro&roGDTChecksum != 0:
		crc := crc16(crc16(uint16(s.seed), number), d[:at])
		if s.incompat&incompat64Bit != 0 {
			crc = crc16(crc, d[at+2:])
		}
		return crc == le.Uint16(d[at:])
	}
	return true
}
