package library

import "encoding/binary"

// captureRecord is what the log of a capture says of one cell. A record is worth what disk.raw and the frame store say
// when they are read again.
type captureRecord struct {
	frame  int    // bytes of its frame, 0 = zero cell
	crc    uint32 // CRC-32C of the frame
	sum1   [20]byte
	sum256 [32]byte
}

// recordLen is a record's length in the log: u32 length, u32 CRC-32C, SHA-1, SHA-256, and 4 bytes that no empty block
// of a file system holds.
const recordLen = 4 + 4 + 20 + 32 + 4

const recordMark = 0x4c57524b

func (r captureRecord) bytes() (b [recordLen]byte) {
	binary.LittleEndian.PutUint32(b[:], uint32(r.frame))
	binary.LittleEndian.PutUint32(b[4:], r.crc)
	copy(b[8:], r.sum1[:])
	copy(b[28:], r.sum256[:])
	binary.LittleEndian.PutUint32(b[60:], recordMark)
	return b
}

func parseRecord(b [recordLen]byte) (captureRecord, bool) {
	n := binary.LittleEndian.Uint32(b[:])
	r := captureRecord{frame: int(n), crc: binary.LittleEndian.Uint32(b[4:]), sum1: [20]byte(b[8:]), sum256: [32]byte(b[28:])}
	return r, binary.LittleEndian.Uint32(b[60:]) == recordMark && n < 8<<20
}
