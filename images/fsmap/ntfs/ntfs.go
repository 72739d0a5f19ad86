// Package ntfs reads the used map of an NTFS volume from its $Bitmap, and tells whether Windows left it in order.
//
// It follows fragmented system files through attribute lists and undoes the fixups of records; it reads no user's
// file but the first bytes of hiberfil.sys. Package fsmap calls it.
// Layouts: the headers of ntfs-3g (layout.h, logfile.h), which are those of Microsoft's documentation where it has any.
package ntfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var le = binary.LittleEndian

// Numbers of the MFT records that a reader needs.
const (
	recMFT     = 0
	recLogFile = 2
	recVolume  = 3
	recRoot    = 5
	recBitmap  = 6
)

type volume struct {
	r                       io.ReaderAt
	sector, cluster, record int64  // bytes
	total, clusters         int64  // sectors, clusters
	mftStart, mirror        int64  // clusters
	serial                  string // as Windows' tools write it
	mft                     stream // of the $MFT, empty until openMFT
}

// Is tells whether a boot sector is NTFS's.
func Is(b []byte) bool { return len(b) >= 512 && bytes.Equal(b[3:11], []byte("NTFS    ")) }

// Used reads the used map. r spans the partition of size bytes. It returns scan.ErrUnsupported for a form it does not
// know and scan.ErrCorrupt for tables that contradict each other; FS, UUID, Label and State are filled then too, as
// far as known. A volume that is not clean has no extents.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "ntfs", Kind: "reader"}
	b, err := scan.Read(r, 0, 512)
	if err != nil {
		return um, fmt.Errorf("read NTFS boot sector: %w", err)
	}
	v, err := parseBoot(r, b)
	if err != nil {
		return um, err
	}
	um.UUID, um.Size = v.serial, v.total*v.sector
	if um.Size > size {
		return um, fmt.Errorf("volume of %d bytes in a partition of %d: %w", um.Size, size, scan.ErrCorrupt)
	}
	if err := v.checkCopies(b, size); err != nil {
		return um, err
	}
	if err := v.openMFT(); err != nil {
		return um, err
	}
	if um.Label, um.State, um.Why, err = v.state(); err != nil || um.State != manifest.StateClean {
		return um, err
	}
	um.Extents, err = v.extents(size)
	return um, err
}

func parseBoot(r io.ReaderAt, b []byte) (*volume, error) {
	bad := func(what string, v any) (*volume, error) {
		return nil, fmt.Errorf("NTFS boot sector: %s %v: %w", what, v, scan.ErrCorrupt)
	}
	pow2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	v := &volume{
		r: r, sector: int64(le.Uint16(b[11:])), total: int64(le.Uint64(b[40:])),
		mftStart: int64(le.Uint64(b[48:])), mirror: int64(le.Uint64(b[56:])), serial: fmt.Sprintf("%016X", le.Uint64(b[72:])),
	}
	per := int64(b[13])
	if per > 0x80 { // a negative exponent, for clusters of 64 KiB to 2 MiB
		per = 1 << min(256-per, 40)
	}
	v.cluster = v.sector * per
	switch {
	case !Is(b):
		return bad("magic", b[3:11])
	case !pow2(v.sector) || v.sector < 512 || v.sector > 4096:
		return bad("sector size", v.sector)
	case !pow2(per) || v.cluster > 2<<20:
		return bad("cluster size", v.cluster)
	case v.total <= 0 || v.total > manifest.MaxDisk/v.sector:
		return bad("sector count", v.total)
	}
	v.clusters = v.total / per
	if n := int64(int8(b[64])); n < 0 {
		v.record = 1 << min(-n, 40)
	} else {
		v.record = n * v.cluster
	}
	switch {
	case !pow2(v.record) || v.record < 512 || v.record > 16<<10:
		return bad("record size", v.record)
	case v.mftStart <= 0 || v.mftStart >= v.clusters:
		return bad("$MFT cluster", v.mftStart)
	case v.mirror <= 0 || v.mirror >= v.clusters:
		return bad("$MFTMirr cluster", v.mirror)
	}
	return v, nil
}

// copies are the bytes at which the copy of the boot sector stands: behind the last cluster, and at the end of a
// partition that is larger.
func (v *volume) copies(size int64) []int64 { return []int64{v.total * v.sector, size - v.sector} }

// checkCopies compares the sizes in the boot sector with those in its copy. A place without a copy says nothing.
func (v *volume) checkCopies(b []byte, size int64) error {
	for _, at := range v.copies(size) {
		if at > size-v.sector {
			continue
		}
		c, err := scan.Read(v.r, at, 512)
		if err != nil {
			return fmt.Errorf("read the copy of the NTFS boot sector: %w", err)
		}
		// Sector and cluster size; then number of sectors, places of the $MFT and its mirror, size of records.
		if Is(c) && (!bytes.Equal(b[11:14], c[11:14]) || !bytes.Equal(b[40:65], c[40:65])) {
			return fmt.Errorf("the NTFS boot sector and its copy at byte %d have different sizes: %w", at, scan.ErrCorrupt)
		}
	}
	return nil
}

// openMFT finds all parts of the $MFT. Its first record holds the first part of the run list; what comes after may
// stand in records that only the parts before it lead to, so the stream is used while it grows.
func (v *volume) openMFT() error {
	rec, err := v.readRecord(recMFT)
	if err != nil {
		return err
	}
	if err := v.open(&v.mft, rec, attrData, ""); err != nil {
		return fmt.Errorf("NTFS $MFT: %w", err)
	}
	if len(v.mft.runs) == 0 || v.mft.runs[0].lcn != v.mftStart {
		return fmt.Errorf("NTFS $MFT: its own record and the boot sector (cluster %d) place it differently: %w", v.mftStart, scan.ErrCorrupt)
	}
	return nil
}

// extents returns what $Bitmap marks, and what every volume needs whatever its bitmap says.
func (v *volume) extents(size int64) ([]manifest.Extent, error) {
	rec, err := v.readRecord(recBitmap)
	if err != nil {
		return nil, err
	}
	var bm stream
	if err := v.open(&bm, rec, attrData, ""); err != nil {
		return nil, fmt.Errorf("NTFS $Bitmap: %w", err)
	}
	need := (v.clusters + 7) / 8
	if bm.size < need || bm.valid < need {
		return nil, fmt.Errorf("NTFS $Bitmap has %d valid bytes, %d clusters need %d: %w", min(bm.size, bm.valid), v.clusters, need, scan.ErrCorrupt)
	}
	var b scan.Builder
	buf := make([]byte, min(need, scan.MaxRead))
	for off := int64(0); off < need; off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), need-off)]
		if err := bm.readAt(v, part, off); err != nil {
			return nil, fmt.Errorf("read NTFS $Bitmap: %w", err)
		}
		scan.Runs(part, v.clusters-off*8, func(first, n int64) {
			b.Add((off*8+first)*v.cluster, n*v.cluster)
		})
	}
	list := b.Finish(v.clusters * v.cluster)
	if err := v.checkOwn(list, &bm); err != nil {
		return nil, err
	}
	list = append(list, manifest.Extent{Off: v.mirror * v.cluster, Len: max(4*v.record, v.cluster)}) // for chkdsk
	for _, at := range v.copies(size) {
		list = append(list, manifest.Extent{Off: at, Len: v.sector})
	}
	return manifest.RoundOut(list, manifest.Unit, size), nil
}

// checkOwn makes sure that the bitmap knows of the boot sector, the $MFT and itself. If it does not, it is no bitmap.
func (v *volume) checkOwn(list []manifest.Extent, bm *stream) error {
	own := append([]run{{lcn: 0, n: 1}}, v.mft.runs...)
	for _, x := range append(own, bm.runs...) {
		off, n := x.lcn*v.cluster, x.n*v.cluster
		i := manifest.First(list, off)
		if i == len(list) || list[i].Off > off || list[i].End() < off+n {
			return fmt.Errorf("NTFS $Bitmap does not mark its own system files at byte %d: %w", off, scan.ErrCorrupt)
		}
	}
	return nil
}

// known tells whether an error is about the volume's tables, not about reading the disk.
func known(err error) bool {
	return errors.Is(err, scan.ErrCorrupt) || errors.Is(err, scan.ErrUnsupported)
}
