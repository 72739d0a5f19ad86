package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"labswarm/images/manifest"
	"labswarm/images/mask"
)

// image is what an agent keeps in memory of an image beside the torrent.
type image struct {
	manifest *manifest.Manifest
	masker   *mask.Masker
}

// writeManifest writes the manifest of a disk that is the payload, one used
// extent a cell, so that the tables are as long as they get.
func (p payload) writeManifest(infoHash [20]byte) error {
	used := make([]manifest.Extent, p.cells)
	for i := range used {
		used[i] = manifest.Extent{Off: int64(i) * p.cell, Len: p.cell - manifest.Unit}
	}
	usedBin, err := manifest.EncodeUsed(used)
	if err != nil {
		return fmt.Errorf("make manifest: %w", err)
	}
	hashes := make([]byte, 32*p.cells) // nobody reads back here: any will do
	blob := func(b []byte, count int) *manifest.Blob {
		sum := sha256.Sum256(b)
		return &manifest.Blob{SHA256: hex.EncodeToString(sum[:]), Len: int64(len(b)), Count: int64(count)}
	}
	cell := p.cell
	if cell < manifest.CellSizes()[0] { // the smallest payloads are no images
		return nil
	}
	m := manifest.Manifest{
		Format: manifest.Format, Name: "bench", Version: "2026-01-01.1", Created: time.Unix(1e9, 0).UTC(),
		Disk: manifest.Disk{Size: p.bytes, Sector: 512, Label: "mbr", GUID: "00000001", MinSize: p.bytes},
		Cell: cell, Parts: []manifest.Part{}, UsedBlob: blob(usedBin, len(used)), Cells: []manifest.Run{{First: 0, Count: int64(p.cells)}},
		Zero: []manifest.Run{}, HashesBlob: blob(hashes, 0), InfoHash: hex.EncodeToString(infoHash[:]), Boot: "unknown", Codec: "zstd",
		Forced: []string{},
	}
	b, err := m.Marshal()
	if err != nil {
		return fmt.Errorf("make manifest: %w", err)
	}
	for name, data := range map[string][]byte{"manifest.json": b, "used.bin": usedBin, "hashes.bin": hashes} {
		if err := os.WriteFile(filepath.Join(p.work, name), data, 0o600); err != nil {
			return fmt.Errorf("write manifest: %w", err)
		}
	}
	return nil
}

// readImage reads the manifest beside a torrent as the agent does, nil when
// there is none.
func readImage(torrent string) (*image, error) {
	dir := filepath.Dir(torrent)
	var files [3][]byte
	for i, name := range []string{"manifest.json", "used.bin", "hashes.bin"} {
		var err error
		if files[i], err = os.ReadFile(filepath.Join(dir, name)); os.IsNotExist(err) {
			return nil, nil
		} else if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
	}
	m, err := manifest.Load(files[0], files[1], files[2])
	if err != nil {
		return nil, err
	}
	return &image{m, mask.New(m)}, nil
}
