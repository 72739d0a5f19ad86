package manifest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// EncodeUsed writes a merged used map as used.bin: pairs of minimal uvarints (gap, length) in units of 512 bytes,
// the gap counted from the end of the previous extent. A map has exactly one encoding, so its digest is unique.
func EncodeUsed(list []Extent) ([]byte, error) {
	if len(list) > MaxExtents {
		return nil, fmt.Errorf("encode used map: %d extents: %w", len(list), ErrTooManyExtents)
	}
	if err := checkUsed(list, MaxDisk); err != nil {
		return nil, fmt.Errorf("encode used map: %w", err)
	}
	out := make([]byte, 0, 4*len(list))
	var end int64
	for _, e := range list {
		out = binary.AppendUvarint(out, uint64(e.Off-end)/Unit)
		out = binary.AppendUvarint(out, uint64(e.Len)/Unit)
		end = e.End()
	}
	return out, nil
}

// DecodeUsed reads used.bin: exactly count pairs, then the end. Gap 0 may stand only in the first pair, lengths are
// at least 1 and the last extent ends within diskSize bytes. Memory grows with what was read, not with count.
func DecodeUsed(r io.Reader, count, diskSize int64) ([]Extent, error) {
	if count < 0 || count > MaxExtents {
		return nil, fmt.Errorf("decode used map: %d extents: %w", count, ErrTooManyExtents)
	}
	br := bufio.NewReader(r)
	list := make([]Extent, 0, min(count, 4096))
	var end int64 // units
	limit := diskSize / Unit
	for i := range count {
		gap, err := minimalUvarint(br)
		if err != nil {
			return nil, fmt.Errorf("decode used map: extent %d: %w", i, err)
		}
		n, err := minimalUvarint(br)
		if err != nil {
			return nil, fmt.Errorf("decode used map: extent %d: %w", i, err)
		}
		room := uint64(limit - end)
		if (gap == 0 && i > 0) || n == 0 || gap > room || n > room-gap {
			return nil, fmt.Errorf("decode used map: extent %d: gap %d, length %d at unit %d of %d", i, gap, n, end, limit)
		}
		list = append(list, Extent{(end + int64(gap)) * Unit, int64(n) * Unit})
		end += int64(gap) + int64(n)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode used map: data after the last extent")
	}
	return list, nil
}

func minimalUvarint(r *bufio.Reader) (uint64, error) {
	var v uint64
	for shift := uint(0); shift < 63; shift += 7 {
		b, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return 0, io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		if b == 0 && shift > 0 {
			return 0, errors.New("number is not in its shortest form")
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, errors.New("number exceeds 63 bits")
}
