// Package swap recognises Linux swap areas, of which only the header page is worth carrying.
// Package fsmap calls it.
package swap

import (
	"fmt"
	"io"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

// Detect returns the page size of the swap area at the start of r, or 0 when there is none. hibernated tells that
// the area holds a suspended system (the signature is S1SUSPEND or alike).
func Detect(r io.ReaderAt) (page int64, hibernated bool) {
	// mkswap puts the signature into the last 10 bytes of the first page, whatever a page is on that machine.
	for _, page := range []int64{4096, 8192, 16384, 65536} {
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

// Used returns the header page as the used map.
func Used(r io.ReaderAt, size int64) (manifest.UsedMap, error) {
	um := manifest.UsedMap{FS: "swap", Kind: "header", Clean: true}
	page, hibernated := Detect(r)
	if page == 0 || page > size {
		return um, fmt.Errorf("no swap area: %w", scan.ErrCorrupt)
	}
	if hibernated {
		um.Clean, um.Why = false, "it holds a hibernated system: start that system and shut it down"
	}
	b, err := scan.Read(r, 1024, 44)
	if err != nil {
		return um, fmt.Errorf("read swap header: %w", err)
	}
	um.UUID, um.Label = manifest.UUIDText(b[12:28]), manifest.CleanText(b[28:44])
	um.Extents = []manifest.Extent{{Off: 0, Len: page}}
	return um, nil
}
