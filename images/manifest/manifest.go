// Package manifest is the signed description of one image version: its disk, partitions, used map, cells and hashes.
//
// It parses, checks and signs; it reads no disk and no network. Format 1 is specified in docs/IMAGE-FORMAT.md.
// The library writes manifests, the server's seeder and the agent load them. Everything here treats its input as
// written by a stranger: sizes are limited, unknown fields are refused (a field we ignore might be one that
// protects data) and every number is checked before it is used.
package manifest

import (
	"encoding/json"
	"fmt"
	"iter"
	"sort"
	"time"
)

// Format is the only manifest format this package reads and writes.
const Format = 1

// Limits of an untrusted manifest. They bound memory, not ambition: 1<<20 cells of 4 MiB are 4 TiB of data.
const (
	MaxJSON     = 4 << 20 // bytes of manifest.json
	MaxPieces   = 1 << 20 // data cells
	MaxExtents  = 1 << 22 // used extents
	MaxParts    = 132     // 128 GPT entries, or 4 MBR entries and their logical ones
	MaxDisk     = 1 << 53 // bytes; every offset is below it and so exact in any JSON reader
	InlineUsed  = 4096    // extents that may stand in the JSON itself; more go to used.bin
	InlineCells = 16384   // data cells whose hashes may stand in the JSON itself; more go to hashes.bin
	Unit        = 512     // bytes; every offset and length is a multiple of it
)

// DefaultCell returns the cell size, in bytes, of an image that nobody asked a size for. used are the used bytes of its disk,
// merged. Small cells make an update fetch less and let the last PC of a chain end sooner; they make the compressed form 4 %
// longer (docs/IMAGE-FORMAT.md), and each costs memory. So the smallest is taken up to 4 GiB, unless those lie so scattered
// that the manifest's lists of cells would grow long; then 1 MiB, and more where 128 Ki cells are not enough.
func DefaultCell(used []Extent) int64 {
	const mib = 1 << 20
	switch n := Sum(used); {
	case n <= InlineCells*mib/4 && countRuns(TouchedCells(used, mib/4)) <= 4*InlineCells:
		return mib / 4
	case n <= 128<<10*mib:
		return mib
	case n <= 256<<10*mib:
		return 2 * mib
	}
	return 4 * mib
}

// Manifest is manifest.json, format 1. All offsets and sizes are bytes.
// Make one with Parse or Load; the accessors below need the tables these prepare.
type Manifest struct {
	Format   int       `json:"format"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Base     string    `json:"base"`
	Created  time.Time `json:"created"` // information only, never compared with a clock
	Disk     Disk      `json:"disk"`
	Cell     int64     `json:"cell"`
	Parts    []Part    `json:"parts"`
	UsedList []Extent  `json:"used,omitempty"` // inline used map; see Used
	UsedBlob *Blob     `json:"used_blob,omitempty"`
	Cells    []Run     `json:"cells"` // data cells; piece i is the i-th cell of this list
	Zero     []Run     `json:"zero"`  // cells with used bytes that are all zero

	HashList   []byte `json:"sha256,omitempty"` // inline hashes, 32 bytes per data cell; see PieceSHA256
	HashesBlob *Blob  `json:"hashes_blob,omitempty"`

	InfoHash    string      `json:"infohash"` // 40 hex digits, of image.torrent
	Boot        string      `json:"boot"`     // bios, uefi, both or unknown
	OSHint      string      `json:"os_hint"`  // free text
	Codec       string      `json:"codec"`    // zstd: made with a frame store; none
	Personalise Personalise `json:"personalise"`
	Forced      []string    `json:"forced"` // guards the admin overrode

	// Filled by Parse and Load.
	starts []int64 // starts[i] = number of pieces before Cells[i]
	used   []Extent
	hashes []byte
}

// Disk describes the source disk.
type Disk struct {
	Size    int64  `json:"size"`
	Sector  int    `json:"sector"`   // logical sector: 512 or 4096
	Label   string `json:"label"`    // gpt or mbr
	GUID    string `json:"guid"`     // GPT disk GUID, or the 8 hex digits of the MBR disk id
	MinSize int64  `json:"min_size"` // smallest target disk
}

// Part is one partition.
type Part struct {
	N         int    `json:"n"`
	Start     int64  `json:"start"`
	Size      int64  `json:"size"`
	Type      string `json:"type"`  // GUID, or the MBR type byte as two hex digits
	GUID      string `json:"guid"`  // "" on MBR
	Attrs     string `json:"attrs"` // 16 hex digits
	Name      string `json:"name"`
	FS        string `json:"fs"` // ext4, fat32, ntfs, swap, ..., none, unknown
	FSUUID    string `json:"fs_uuid"`
	FSLabel   string `json:"fs_label"`
	Map       string `json:"map"`   // reader, header, whole or none
	Clean     bool   `json:"clean"` // false only when Forced says so
	UsedBytes int64  `json:"used_bytes"`
	Grow      bool   `json:"grow"`
	OS        string `json:"os"` // linux, windows or ""
}

// Blob names a side file by digest. Count is the number of extents for used.bin and absent for hashes.bin.
type Blob struct {
	SHA256 string `json:"sha256"` // 64 hex digits
	Len    int64  `json:"len"`    // bytes
	Count  int64  `json:"count,omitempty"`
}

// Pieces returns the number of data cells, which is the number of torrent pieces.
func (m *Manifest) Pieces() int {
	if len(m.Cells) == 0 || len(m.starts) != len(m.Cells) {
		return 0
	}
	last := len(m.Cells) - 1
	return int(m.starts[last] + m.Cells[last].Count)
}

// CellOf returns the grid cell of a piece, or -1 for a piece that does not exist.
// The piece covers the disk bytes from CellOf(piece)*Cell on.
func (m *Manifest) CellOf(piece int) int64 {
	if piece < 0 || piece >= m.Pieces() {
		return -1
	}
	i := sort.Search(len(m.starts), func(i int) bool { return m.starts[i] > int64(piece) }) - 1
	return m.Cells[i].First + int64(piece) - m.starts[i]
}

// PieceOf returns the piece that holds a grid cell; false when it is a zero cell or a free cell.
func (m *Manifest) PieceOf(cell int64) (int, bool) {
	i := findRun(m.Cells, cell)
	if i < 0 || i >= len(m.starts) {
		return 0, false
	}
	return int(m.starts[i] + cell - m.Cells[i].First), true
}

// IsZero tells whether a grid cell has used bytes that are all zero.
func (m *Manifest) IsZero(cell int64) bool { return findRun(m.Zero, cell) >= 0 }

// ZeroCells yields the zero cells in ascending order.
func (m *Manifest) ZeroCells() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for _, r := range m.Zero {
			for c := r.First; c < r.First+r.Count; c++ {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// ZeroCount returns the number of zero cells.
func (m *Manifest) ZeroCount() int64 { return countRuns(m.Zero) }

// GridCells returns the number of cells the whole disk has; the last may hang over its end.
func (m *Manifest) GridCells() int64 { return (m.Disk.Size + m.Cell - 1) / m.Cell }

// Used returns the used map: ascending, disjoint, merged extents on the disk scale.
// It is nil before Load when the map lives in used.bin. The slice must not be changed.
func (m *Manifest) Used() []Extent { return m.used }

// PieceSHA256 returns the SHA-256 of a piece's masked content, padded with zeros to a full cell.
// It is all zero for a piece that does not exist and before Load when the hashes live in hashes.bin.
func (m *Manifest) PieceSHA256(piece int) (sum [32]byte) {
	if piece >= 0 && (piece+1)*32 <= len(m.hashes) {
		copy(sum[:], m.hashes[piece*32:])
	}
	return sum
}

// ShippedBytes returns how many bytes a host without anything has to fetch.
func (m *Manifest) ShippedBytes() int64 { return int64(m.Pieces()) * m.Cell }

// Marshal encodes a manifest for writing. The bytes are signed as they are and never encoded again.
func (m *Manifest) Marshal() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	if len(b) > MaxJSON {
		return nil, fmt.Errorf("encode manifest: %d bytes exceed the limit of %d", len(b), MaxJSON)
	}
	return b, nil
}
