package part

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

const (
	entrySize  = 128 // bytes; UEFI allows 128*2^n, nobody writes others
	maxEntries = 128
)

var le = binary.LittleEndian

// errNoGPT means that there is no GPT signature at all at the place looked at.
var errNoGPT = errors.New("no GPT header")

func readGPT(r io.ReaderAt, size int64, sector int) (*Table, error) {
	sectors := []int{512, 4096}
	if sector != 0 {
		sectors = []int{sector}
	}
	var first error
	for _, s := range sectors {
		t, err := gptAt(r, size, s)
		if err == nil {
			return t, nil
		}
		if first == nil || errors.Is(first, errNoGPT) {
			first = err
		}
	}
	if errors.Is(first, errNoGPT) {
		first = errors.New("the protective MBR is there but the GPT header is not")
	}
	for _, s := range sectors {
		if size >= int64(s) && size%int64(s) == 0 {
			if h, err := readAt(r, size-int64(s), s); err == nil && string(h[:8]) == gptSignature {
				first = fmt.Errorf("%w; a backup GPT stands at the end: repair the source disk with gdisk (r, b, w) and try again", first)
				break
			}
		}
	}
	if !errors.Is(first, ErrUnsupported) && !errors.Is(first, ErrDamaged) {
		first = fmt.Errorf("%w: %w", first, ErrDamaged)
	}
	return nil, fmt.Errorf("read partition table: %w", first)
}

func gptAt(r io.ReaderAt, size int64, sector int) (*Table, error) {
	h, err := readAt(r, int64(sector), sector)
	if err != nil || string(h[:8]) != gptSignature {
		return nil, errNoGPT
	}
	if size%int64(sector) != 0 {
		return nil, fmt.Errorf("the GPT uses %d-byte sectors but the size %d is not a multiple of it: %w", sector, size, ErrDamaged)
	}
	if err := checkHeader(h, 1); err != nil {
		return nil, err
	}
	n := int(le.Uint32(h[80:]))
	start := le.Uint64(h[72:])
	if n == 0 || n > maxEntries || le.Uint32(h[84:]) != entrySize {
		return nil, fmt.Errorf("GPT with %d entries of %d bytes, want at most %d of %d: %w", n, le.Uint32(h[84:]), maxEntries, entrySize, ErrUnsupported)
	}
	if start < 2 || start > HeadSize/uint64(sector) || int64(start)*int64(sector)+int64(n)*entrySize > HeadSize {
		return nil, fmt.Errorf("GPT entries at sector %d do not lie in the first %d bytes: %w", start, HeadSize, ErrUnsupported)
	}
	ents, err := readAt(r, int64(start)*int64(sector), n*entrySize)
	if err != nil {
		return nil, fmt.Errorf("GPT entries: %w", err)
	}
	if crc32.ChecksumIEEE(ents) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("GPT entries do not match their checksum: %w", ErrDamaged)
	}
	t := &Table{Label: "gpt", Sector: sector, Size: size, GUID: guidText(h[56:72]), header: h, entries: ents}
	return t, t.parseEntries(int64(start)*int64(sector) + int64(len(ents)))
}

// checkHeader checks one GPT header sector that must describe itself as standing at LBA self.
func checkHeader(h []byte, self uint64) error {
	n := le.Uint32(h[12:])
	if n < 92 || n > uint32(len(h)) {
		return fmt.Errorf("GPT header of %d bytes: %w", n, ErrDamaged)
	}
	if headerCRC(h) != le.Uint32(h[16:]) {
		return fmt.Errorf("GPT header does not match its checksum: %w", ErrDamaged)
	}
	if le.Uint64(h[24:]) != self {
		return fmt.Errorf("GPT header names LBA %d as its place instead of %d: %w", le.Uint64(h[24:]), self, ErrDamaged)
	}
	return nil
}

// headerCRC computes the checksum over the header with the checksum field taken as zero.
func headerCRC(h []byte) uint32 {
	c := bytes.Clone(h[:le.Uint32(h[12:])])
	clear(c[16:20])
	return crc32.ChecksumIEEE(c)
}

func (t *Table) parseEntries(tableEnd int64) error {
	sector := uint64(t.Sector)
	for i := 0; i*entrySize < len(t.entries); i++ {
		e := t.entries[i*entrySize : (i+1)*entrySize]
		if allZero(e[:16]) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > last || last >= 1<<53/sector || int64(first*sector) < tableEnd {
			return fmt.Errorf("GPT partition %d spans sectors %d to %d: %w", i+1, first, last, ErrDamaged)
		}
		t.Parts = append(t.Parts, Entry{
			N: i + 1, Start: int64(first * sector), Size: int64((last - first + 1) * sector),
			Type: guidText(e[:16]), GUID: guidText(e[16:32]), Attrs: le.Uint64(e[48:]), Name: nameText(e[56:128]),
		})
	}
	return nil
}

// checkBackup looks where the primary header says the backup is; a problem becomes a warning.
func (t *Table) checkBackup(r io.ReaderAt) {
	alt := le.Uint64(t.header[32:])
	last := uint64(t.Size/int64(t.Sector)) - 1
	warn := func(text string) { t.Warnings = append(t.Warnings, text+"; it is rebuilt on every disk written") }
	if alt > last {
		warn("the backup GPT lies beyond the end: the disk was cut after its last partition")
		return
	}
	if alt != last {
		warn("the backup GPT is not at the end of the disk")
	}
	h, err := readAt(r, int64(alt)*int64(t.Sector), t.Sector)
	if err != nil || string(h[:8]) != gptSignature || checkHeader(h, alt) != nil {
		warn("the backup GPT is missing or damaged")
		return
	}
	if !bytes.Equal(h[56:72], t.header[56:72]) || !bytes.Equal(h[80:92], t.header[80:92]) {
		warn("the backup GPT lists other partitions than the primary")
	}
}

// guidText writes a GUID with its first three fields little-endian (UEFI appendix A).
func guidText(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// nameText decodes a UTF-16 name and drops what a terminal could misread.
func nameText(b []byte) string {
	var u []uint16
	for i := 0; i+1 < len(b); i += 2 {
		c := le.Uint16(b[i:])
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || (r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, string(utf16.Decode(u)))
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
