// Package exfat reads the used map of an exFAT volume from its allocation bitmap. Package fsmap calls it.
//
// Field names and offsets: Microsoft, "exFAT file system specification" (2019).
package exfat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"unicode/utf16"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var le = binary.LittleEndian

// maxRoot limits how much of the root directory is searched for the bitmap's entry, in bytes. Formatting puts it first.
const maxRoot = 8 << 20

type volume struct {
	r               io.ReaderAt
	sector, cluster int64 // bytes
	fat, heap       int64 // bytes from the start of the volume
	clusters        int64
	root            int64 // cluster
}

// file is a chain of clusters.
type file struct {
	chain []int64
	size  int64 // bytes
}

// Is tells whether a boot sector is exFAT's.
func Is(b []byte) bool { return len(b) >= 512 && bytes.Equal(b[3:11], []byte("EXFAT   ")) }

// Used reads the used map. r spans the partition of size bytes. It returns scan.ErrUnsupported for a form it does not
// know and scan.ErrCorrupt for tables that contradict each other; FS, UUID, Label and State are filled then too, as
// far as known. A volume that is not clean has no extents.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "exfat", Kind: "reader"}
	b, err := scan.Read(r, 0, 512)
	if err != nil {
		return um, fmt.Errorf("read exFAT boot sector: %w", err)
	}
	um.UUID = fmt.Sprintf("%04X-%04X", le.Uint16(b[102:]), le.Uint16(b[100:]))
	v, length, err := parseBoot(r, b)
	if err != nil {
		return um, err
	}
	um.Size = length
	if um.Size > size {
		return um, fmt.Errorf("volume of %d bytes in a partition of %d: %w", um.Size, size, scan.ErrCorrupt)
	}
	um.State = manifest.StateClean
	const volumeDirty = 2
	if flags := le.Uint16(b[106:]); flags&volumeDirty != 0 {
		um.State, um.Why = manifest.StateDirty, "it is mounted or was not unmounted (VolumeDirty)"
	}
	if err := v.checksum(); err != nil {
		return um, err
	}
	root, err := v.chain(v.root, maxRoot)
	if err != nil {
		return um, fmt.Errorf("exFAT root directory: %w", err)
	}
	bitmap, label, err := v.search(root)
	um.Label = label
	if err != nil || um.State != manifest.StateClean {
		return um, err
	}
	um.Extents, err = v.extents(root, bitmap)
	return um, err
}

// parseBoot checks the boot sector and returns the volume with its length in bytes.
func parseBoot(r io.ReaderAt, b []byte) (*volume, int64, error) {
	bad := func(what string, n int64) (*volume, int64, error) {
		return nil, 0, fmt.Errorf("exFAT boot sector: %s %d: %w", what, n, scan.ErrCorrupt)
	}
	if !Is(b) {
		return bad("magic", int64(b[3]))
	}
	sectorShift, clusterShift := int64(b[108]), int64(b[109])
	if sectorShift < 9 || sectorShift > 12 || clusterShift > 25-sectorShift {
		return bad("sector and cluster shift", sectorShift<<8|clusterShift)
	}
	if b[110] != 1 || le.Uint16(b[106:])&1 != 0 || b[105] != 1 {
		return nil, 0, fmt.Errorf("exFAT revision %d with %d FATs: %w", b[105], b[110], scan.ErrUnsupported)
	}
	length := le.Uint64(b[72:])
	if length == 0 || length > manifest.MaxDisk>>sectorShift {
		return bad("volume length", int64(length))
	}
	fat, fatSectors, heap := int64(le.Uint32(b[80:])), int64(le.Uint32(b[84:])), int64(le.Uint32(b[88:]))
	v := &volume{
		r: r, sector: 1 << sectorShift, cluster: 1 << (sectorShift + clusterShift), fat: fat << sectorShift, heap: heap << sectorShift,
		clusters: int64(le.Uint32(b[92:])), root: int64(le.Uint32(b[96:])),
	}
	switch {
	case fat < 24 || fatSectors == 0 || heap < fat+fatSectors:
		return bad("FAT at sector", fat)
	case v.clusters == 0 || v.clusters > 0xfffffff5 || (v.clusters+2)*4 > fatSectors<<sectorShift:
		return bad("cluster count", v.clusters)
	case v.clusters > (int64(length)<<sectorShift-v.heap)/v.cluster:
		return bad("volume too short for its clusters", v.clusters)
	case !v.has(v.root):
		return bad("root cluster", v.root)
	}
	return v, int64(length) << sectorShift, nil
}

// has tells whether a cluster number is one of the heap.
func (v *volume) has(c int64) bool { return c >= 2 && c < v.clusters+2 }

// at is the byte at which a cluster begins.
func (v *volume) at(c int64) int64 { return v.heap + (c-2)*v.cluster }

// checksum checks the boot region: sector 11 repeats the sum over sectors 0 to 10, without the flags that change.
func (v *volume) checksum() error {
	b, err := scan.Read(v.r, 0, int(12*v.sector))
	if err != nil {
		return fmt.Errorf("read exFAT boot region: %w", err)
	}
	sum := uint32(0)
	for i, x := range b[:11*v.sector] {
		if i != 106 && i != 107 && i != 112 {
			sum = bits.RotateLeft32(sum, -1) + uint32(x)
		}
	}
	for at := 11 * v.sector; at < 12*v.sector; at += 4 {
		if le.Uint32(b[at:]) != sum {
			return fmt.Errorf("exFAT boot region: the checksum at byte %d is wrong: %w", at, scan.ErrCorrupt)
		}
	}
	return nil
}

// chain follows the FAT from a cluster to its end mark, over at most limit bytes.
func (v *volume) chain(first, limit int64) (file, error) {
	var f file
	const endMark = 0xffffffff
	for c := first; c != endMark; {
		if !v.has(c) {
			return f, fmt.Errorf("cluster %d of %d in a chain: %w", c, v.clusters, scan.ErrCorrupt)
		}
		if f.size >= limit {
			return f, fmt.Errorf("a chain from cluster %d of more than %d bytes: %w", first, limit, scan.ErrCorrupt)
		}
		f.chain = append(f.chain, c)
		f.size += v.cluster
		b, err := scan.Read(v.r, v.fat+c*4, 4)
		if err != nil {
			return f, fmt.Errorf("read FAT: %w", err)
		}
		c = int64(le.Uint32(b))
	}
	return f, nil
}

// search finds the allocation bitmap and the volume label in the root directory.
func (v *volume) search(root file) (bitmap file, label string, err error) {
	const typeBitmap, typeLabel = 0x81, 0x83
	need := (v.clusters + 7) / 8
	buf := make([]byte, min(v.cluster, 64<<10))
	for off := int64(0); off < root.size; off += int64(len(buf)) {
		if err := scan.Fill(v.r, v.at(root.chain[off/v.cluster])+off%v.cluster, buf); err != nil {
			return bitmap, label, fmt.Errorf("read exFAT root directory: %w", err)
		}
		for e := buf; len(e) >= 32; e = e[32:] {
			switch {
			case e[0] == 0: // end of directory
				if bitmap.chain == nil {
					return bitmap, label, fmt.Errorf("exFAT root directory has no allocation bitmap: %w", scan.ErrCorrupt)
				}
				return bitmap, label, nil
			case e[0] == typeLabel:
				label = text(e[2:24], int(e[1]))
			case e[0] == typeBitmap && e[1]&1 == 0 && bitmap.chain == nil:
				size := le.Uint64(e[24:])
				if size < uint64(need) || size > uint64(need+v.cluster) {
					return bitmap, label, fmt.Errorf("exFAT allocation bitmap of %d bytes for %d clusters: %w", size, v.clusters, scan.ErrCorrupt)
				}
				if bitmap, err = v.chain(int64(le.Uint32(e[20:])), int64(size)); err != nil {
					return bitmap, label, fmt.Errorf("exFAT allocation bitmap: %w", err)
				}
			}
		}
	}
	if bitmap.size < need {
		return bitmap, label, fmt.Errorf("exFAT root directory has no allocation bitmap: %w", scan.ErrCorrupt)
	}
	return bitmap, label, nil
}

func text(b []byte, n int) string {
	var u []uint16
	for i := range min(n, len(b)/2) {
		u = append(u, le.Uint16(b[2*i:]))
	}
	return manifest.CleanText([]byte(string(utf16.Decode(u))))
}

// extents returns everything before the clusters, and the clusters that the bitmap marks.
func (v *volume) extents(root, bitmap file) ([]manifest.Extent, error) {
	need := (v.clusters + 7) / 8
	if bitmap.size < need {
		return nil, fmt.Errorf("exFAT allocation bitmap: its chain has %d bytes of %d: %w", bitmap.size, need, scan.ErrCorrupt)
	}
	var b scan.Builder
	b.Add(0, v.heap) // boot region, its copy, FAT
	buf := make([]byte, min(v.cluster, scan.MaxRead, need))
	for off := int64(0); off < need; off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), need-off, v.cluster-off%v.cluster)]
		if err := scan.Fill(v.r, v.at(bitmap.chain[off/v.cluster])+off%v.cluster, part); err != nil {
			return nil, fmt.Errorf("read exFAT allocation bitmap: %w", err)
		}
		scan.Runs(part, v.clusters-off*8, func(first, n int64) {
			b.Add(v.at(off*8+first+2), n*v.cluster)
		})
	}
	list := b.Finish(v.at(v.clusters + 2))
	// The bitmap must know of itself and of the root directory. If it does not, it is no bitmap.
	for _, c := range append(bitmap.chain, root.chain...) {
		i := manifest.First(list, v.at(c))
		if i == len(list) || list[i].Off > v.at(c) {
			return nil, fmt.Errorf("exFAT allocation bitmap does not mark cluster %d at byte %d, which it or the root directory fills: %w", c, v.at(c), scan.ErrCorrupt)
		}
	}
	return list, nil
}
