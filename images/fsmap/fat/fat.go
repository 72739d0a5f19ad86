// Package fat reads the used map of a FAT12, FAT16 or FAT32 filesystem, and looks a file up by path.
//
// The used map comes from the first FAT; when the copies differ the map is not trusted. Package fsmap calls it.
// Field offsets: Microsoft "FAT: General Overview of On-Disk Format" 1.03.
package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var le = binary.LittleEndian

type volume struct {
	sector, cluster    int64 // bytes
	reserved, fats     int64 // sectors, copies
	fatSectors         int64
	rootEntries        int64
	total              int64 // sectors
	dataStart          int64 // sector of cluster 2
	clusters           int64
	bits               int // 12, 16 or 32
	rootCluster        int64
	mirrored           bool
	serial, label      string
	stateByte          byte
	firstFAT, fatBytes int64
}

// Is tells whether a boot sector is FAT's. NTFS and exFAT carry 55AA too, so look for those first.
func Is(b []byte) bool {
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xAA {
		return false
	}
	return bytes.HasPrefix(b[82:], []byte("FAT32")) || bytes.HasPrefix(b[54:], []byte("FAT"))
}

// Used reads the used map. r spans the partition of size bytes. It returns scan.ErrUnsupported when the copies of
// the FAT differ and scan.ErrCorrupt for contradicting sizes; the name fields are filled then too, as far as known.
// A volume that is not clean has no extents.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "fat", Kind: "reader"}
	v, err := open(r)
	if err != nil {
		return um, err
	}
	um.FS, um.UUID, um.Label, um.Size = fmt.Sprintf("fat%d", v.bits), v.serial, v.label, v.total*v.sector
	if um.Why, err = v.unclean(r); err != nil {
		return um, err
	}
	um.State = manifest.StateClean
	if um.Size > size {
		return um, fmt.Errorf("filesystem of %d bytes in a partition of %d: %w", um.Size, size, scan.ErrCorrupt)
	}
	if um.Why != "" {
		um.State = manifest.StateDirty
		return um, nil
	}
	if !v.mirrored {
		return um, fmt.Errorf("the FAT copies are not mirrored: %w", scan.ErrUnsupported)
	}
	um.Extents, err = v.extents(r)
	return um, err
}

func open(r io.ReaderAt) (*volume, error) {
	b, err := scan.Read(r, 0, 512)
	if err != nil {
		return nil, fmt.Errorf("read FAT boot sector: %w", err)
	}
	v := &volume{
		sector: int64(le.Uint16(b[11:])), reserved: int64(le.Uint16(b[14:])), fats: int64(b[16]),
		rootEntries: int64(le.Uint16(b[17:])), total: int64(le.Uint16(b[19:])), fatSectors: int64(le.Uint16(b[22:])),
		mirrored: true,
	}
	v.cluster = v.sector * int64(b[13])
	if v.total == 0 {
		v.total = int64(le.Uint32(b[32:]))
	}
	ext := b[36:] // extended boot record: drive, state, signature, serial, label
	if v.fatSectors == 0 {
		v.fatSectors = int64(le.Uint32(b[36:]))
		v.mirrored = b[40]&0x80 == 0
		v.rootCluster = int64(le.Uint32(b[44:]))
		ext = b[64:]
	}
	v.stateByte = ext[1]
	if ext[2] == 0x29 || ext[2] == 0x28 {
		s := le.Uint32(ext[3:])
		v.serial = fmt.Sprintf("%04X-%04X", s>>16, s&0xffff)
	}
	if ext[2] == 0x29 && !bytes.HasPrefix(ext[7:], []byte("NO NAME")) {
		v.label = manifest.CleanText(ext[7:18])
	}
	if err := v.check(b[13]); err != nil {
		return nil, err
	}
	return v, v.checkCopy(r, b)
}

// checkCopy compares the sizes in the boot sector with those in its copy, which only FAT32 has.
func (v *volume) checkCopy(r io.ReaderAt, b []byte) error {
	at := int64(le.Uint16(b[50:]))
	if v.bits != 32 || at == 0 || at >= v.reserved {
		return nil
	}
	c, err := scan.Read(r, at*v.sector, 512)
	if err != nil {
		return fmt.Errorf("read the copy of the FAT boot sector: %w", err)
	}
	// From the sector size to the root cluster, without the hidden sectors, which partitioning tools change.
	if c[510] == 0x55 && c[511] == 0xAA && (!bytes.Equal(b[11:28], c[11:28]) || !bytes.Equal(b[32:52], c[32:52])) {
		return fmt.Errorf("the FAT boot sector and its copy at byte %d have different sizes: %w", at*v.sector, scan.ErrCorrupt)
	}
	return nil
}

func (v *volume) check(sectorsPerCluster byte) error {
	bad := func(what string) error { return fmt.Errorf("FAT boot sector: %s: %w", what, scan.ErrCorrupt) }
	pow2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case !pow2(v.sector) || v.sector < 512 || v.sector > 4096:
		return bad("sector size")
	case !pow2(int64(sectorsPerCluster)):
		return bad("cluster size")
	case v.reserved == 0 || v.fats == 0 || v.fats > 2 || v.fatSectors == 0:
		return bad("no FAT")
	}
	v.dataStart = v.reserved + v.fats*v.fatSectors + (v.rootEntries*32+v.sector-1)/v.sector
	if v.dataStart >= v.total {
		return bad("smaller than its own tables")
	}
	v.clusters = (v.total - v.dataStart) * v.sector / v.cluster
	// The number of clusters alone decides the kind (section "FAT Type Determination"), but FAT32 has its own layout.
	switch {
	case v.rootEntries == 0:
		v.bits = 32
	case v.clusters < 4085:
		v.bits = 12
	default:
		v.bits = 16
	}
	if v.bits == 16 && v.clusters >= 65525 || v.bits == 32 && v.clusters >= 0x0ffffff5 {
		return bad("cluster count")
	}
	v.firstFAT, v.fatBytes = v.reserved*v.sector, v.fatSectors*v.sector
	if (v.clusters+2)*int64(v.bits) > v.fatBytes*8 {
		return bad("the FAT is too short for its clusters")
	}
	return nil
}

// unclean says why the volume was not left in order: the state byte Linux keeps in the boot sector, or the
// "clean shutdown" bit that Windows keeps in FAT[1].
func (v *volume) unclean(r io.ReaderAt) (string, error) {
	if v.stateByte&1 != 0 {
		return "it is mounted or was not unmounted (boot sector)", nil
	}
	b, err := scan.Read(r, v.firstFAT, 8)
	if err != nil {
		return "", fmt.Errorf("read FAT: %w", err)
	}
	if v.bits == 16 && le.Uint16(b[2:])&0x8000 == 0 || v.bits == 32 && le.Uint32(b[4:])&0x08000000 == 0 {
		return "it is mounted or was not unmounted (FAT entry 1)", nil
	}
	return "", nil
}

// chunk is how much of the FAT is read at once: whole entries of all three widths, and whole sectors of both sizes.
const chunk = 3 * 16384

func (v *volume) extents(r io.ReaderAt) ([]manifest.Extent, error) {
	var b scan.Builder
	b.Add(0, v.dataStart*v.sector)
	one, two := make([]byte, chunk), make([]byte, chunk)
	perChunk := int64(chunk) * 8 / int64(v.bits)
	// The whole FAT is compared, but only entries 2..clusters+1 say anything.
	for off := int64(0); off < v.fatBytes; off += chunk {
		n := min(chunk, v.fatBytes-off)
		if err := scan.Fill(r, v.firstFAT+off, one[:n]); err != nil {
			return nil, fmt.Errorf("read FAT: %w", err)
		}
		if v.fats == 2 {
			if err := scan.Fill(r, v.firstFAT+v.fatBytes+off, two[:n]); err != nil {
				return nil, fmt.Errorf("read second FAT: %w", err)
			}
			if !bytes.Equal(one[:n], two[:n]) {
				return nil, fmt.Errorf("the two copies of the FAT differ: %w", scan.ErrUnsupported)
			}
		}
		clear(one[n:])
		first := off * 8 / int64(v.bits)
		for i := max(first, 2); i < min(first+perChunk, v.clusters+2); i++ {
			if entry(one, i-first, v.bits) != 0 {
				b.Add(v.dataStart*v.sector+(i-2)*v.cluster, v.cluster)
			}
		}
	}
	return b.Finish(v.total * v.sector), nil
}

// entry returns FAT entry i of a piece of the FAT that starts with entry 0 of its own counting.
func entry(fat []byte, i int64, bits int) uint32 {
	switch bits {
	case 12:
		w := le.Uint16(fat[i*3/2:])
		if i&1 == 1 {
			w >>= 4
		}
		return uint32(w & 0xfff)
	case 16:
		return uint32(le.Uint16(fat[i*2:]))
	}
	return le.Uint32(fat[i*4:]) & 0x0fffffff
}
