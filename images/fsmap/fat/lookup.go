package fat

import (
	"fmt"
	"io"
	"strings"

	"labswarm/images/fsmap/scan"
)

// maxDir limits how much of one directory is searched, in bytes.
const maxDir = 2 << 20

// Has tells whether a regular file with some content exists. path uses '/', names are 8.3 and case does not matter:
// "EFI/BOOT/BOOTX64.EFI". Long names are not looked at; every file has a short one.
func Has(r io.ReaderAt, path string) (bool, error) {
	v, err := open(r)
	if err != nil {
		return false, err
	}
	dir := v.rootCluster // 0 = the fixed root directory of FAT12 and FAT16
	names := strings.Split(path, "/")
	for i, name := range names {
		short, err := shortName(name)
		if err != nil {
			return false, err
		}
		e, err := v.find(r, dir, short)
		if err != nil || e == nil {
			return false, err
		}
		isDir := e[11]&0x10 != 0
		if i == len(names)-1 {
			return !isDir && le.Uint32(e[28:]) > 0, nil
		}
		if !isDir {
			return false, nil
		}
		dir = int64(le.Uint16(e[26:]))
		if v.bits == 32 {
			dir |= int64(le.Uint16(e[20:])) << 16
		}
		if dir < 2 {
			return false, fmt.Errorf("FAT directory %q has no cluster: %w", name, scan.ErrCorrupt)
		}
	}
	return false, nil
}

func shortName(name string) (string, error) {
	base, extension, _ := strings.Cut(strings.ToUpper(name), ".")
	if base == "" || len(base) > 8 || len(extension) > 3 {
		return "", fmt.Errorf("look up %q on FAT: not an 8.3 name", name)
	}
	return fmt.Sprintf("%-8s%-3s", base, extension), nil
}

// find returns the 32-byte directory entry of a short name, or nil. cluster 0 is the fixed root directory.
func (v *volume) find(r io.ReaderAt, cluster int64, short string) ([]byte, error) {
	if cluster == 0 {
		start := v.firstFAT + v.fats*v.fatBytes
		e, _, err := findIn(r, start, v.rootEntries*32, short)
		return e, err
	}
	for read := int64(0); read < maxDir; read += v.cluster {
		if cluster < 2 || cluster >= v.clusters+2 {
			return nil, nil // end of chain
		}
		at := v.dataStart*v.sector + (cluster-2)*v.cluster
		e, end, err := findIn(r, at, v.cluster, short)
		if e != nil || end || err != nil {
			return e, err
		}
		if cluster, err = v.next(r, cluster); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func findIn(r io.ReaderAt, off, n int64, short string) (entry []byte, end bool, err error) {
	b, err := scan.Read(r, off, int(min(n, scan.MaxRead)))
	if err != nil {
		return nil, false, fmt.Errorf("read FAT directory: %w", err)
	}
	for ; len(b) >= 32; b = b[32:] {
		if b[0] == 0 {
			return nil, true, nil
		}
		// Attribute 8 marks the volume label and, with others, parts of long names.
		if b[11]&8 == 0 && string(b[:11]) == short {
			return b[:32], false, nil
		}
	}
	return nil, false, nil
}

func (v *volume) next(r io.ReaderAt, cluster int64) (int64, error) {
	b, err := scan.Read(r, v.firstFAT+cluster*int64(v.bits)/8, 4)
	if err != nil {
		return 0, fmt.Errorf("read FAT: %w", err)
	}
	switch v.bits {
	case 12: // entry n starts at byte n*3/2; an odd one in the upper half of its first byte
		return int64(le.Uint16(b)>>(4*(cluster&1))) & 0xfff, nil
	case 16:
		return int64(le.Uint16(b)), nil
	}
	return int64(le.Uint32(b) & 0x0fffffff), nil
}
