// Package swap recognises Linux swap areas, of which only the header page is worth carrying.
// Package fsmap calls it.
package swap

import (
	"encoding/binary"
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

var le = binary.LittleEndian

// Detect returns the page size of the swap area at the start of r, or 0 when there is none. hibernated tells that
// the area holds a suspended system (the signature is S1SUSPEND or alike).
func Detect(r io.ReaderAt) (page int64, hibernated bool) {
	// mkswap puts the signature into the last 10 bytes of the first page, whatever a page is on that machine.
	for _, page := range []int64{4096, 8192, 16384, 32768, 65536} {
		b, err := scan.Read(r, page-10, 10)
		if err != nil {
			return 0, false
		}
		switch string(b[:9]) {
		case "SWAPSPACE":
			if b[9] == '2' {
				return page, false
			}
		case "S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB000":
			return page, true
		}
	}
	return 0, false
}

// Used returns the header page as the used map; of a hibernated system, nothing: all its pages count.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "swap", Kind: "header", State: manifest.StateClean}
	page, hibernated := Detect(r)
	if page == 0 || page > size {
		return um, fmt.Errorf("no swap area: %w", scan.ErrCorrupt)
	}
	b, err := scan.Read(r, 1024, 44)
	if err != nil {
		return um, fmt.Errorf("read swap header: %w", err)
	}
	if version := le.Uint32(b); version != 1 {
		return um, fmt.Errorf("swap header of version %d: %w", version, scan.ErrUnsupported)
	}
	um.UUID, um.Label = manifest.UUIDText(b[12:28]), manifest.CleanText(b[28:44])
	um.Size = (int64(le.Uint32(b[4:])) + 1) * page // last_page counts from 0
	if hibernated {
		um.State, um.Why = manifest.StateHibernated, "it holds a hibernated system: start that system and shut it down"
		return um, nil
	}
	um.Extents = []manifest.Extent{{Off: 0, Len: page}}
	return um, nil
}
