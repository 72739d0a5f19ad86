package manifest

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// UsedMap is what a filesystem reader found on one partition. Offsets count from the partition's start.
type UsedMap struct {
	FS      string   // ext4, fat32, swap, ntfs, ..., none, unknown
	UUID    string   // filesystem UUID or volume serial, "" when it has none
	Label   string   // filesystem label
	Kind    string   // how the map came about: reader, header, whole or none
	Extents []Extent // merged, inside the partition, multiples of 512 bytes
	Size    int64    // bytes the filesystem says it spans, 0 when unknown
	State   State    // how the filesystem was left
	Why     string   // why it is not clean, or why the whole partition counts as used
}

// State tells how a filesystem was left by whoever wrote it last.
type State string

// The states of a filesystem. One that is not clean is taken whole: what its tables call free may be in use
// according to a journal, or to the memory of a system that sleeps.
const (
	StateClean      State = "clean"      // unmounted, or nothing speaks against it
	StateDirty      State = "dirty"      // mounted, cut off or damaged
	StateHibernated State = "hibernated" // a sleeping system will go on with it
)

// UUIDText writes 16 bytes as a UUID in big-endian order; "" when all are zero.
func UUIDText(b []byte) string {
	var bits byte
	for _, x := range b {
		bits |= x
	}
	if bits == 0 || len(b) != 16 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// CleanText reads a label from a foreign disk: up to the first zero byte, without trailing blanks, and with
// everything a terminal could misread replaced by '?'.
func CleanText(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < 0x20 || (r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, strings.TrimRight(string(b), " "))
}
