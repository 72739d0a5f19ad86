package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"labswarm/api"
	"labswarm/images/fsmap/sig"
	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/server/daemon/control"
)

// images is control.Images on the image library. Small files of versions are
// kept in RAM: a version never changes, and a whole room asks for the same.
type images struct {
	lib *library.Library

	mu    sync.Mutex
	cache map[string]*imageFiles
}

type imageFiles struct {
	info  control.ImageInfo
	files map[string][]byte
}

const cachedVersions = 8

func newImages(lib *library.Library) *images {
	return &images{lib: lib, cache: map[string]*imageFiles{}}
}

// Find implements control.Images.
func (im *images) Find(name, version string) (control.ImageInfo, error) {
	f, err := im.load(name, version)
	if err != nil {
		return control.ImageInfo{}, err
	}
	return f.info, nil
}

// Latest implements relays.Images.
func (im *images) Latest(name string) (string, error) { return im.lib.Latest(name) }

// File implements control.Images.
func (im *images) File(name, version, file string) ([]byte, error) {
	f, err := im.load(name, version)
	if err != nil {
		return nil, err
	}
	return f.files[file], nil
}

// load returns a version from RAM or from the library.
func (im *images) load(name, version string) (*imageFiles, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if f := im.cache[name+"/"+version]; f != nil && version != "" && version != "latest" {
		if im.lib.Has(name, version) { // the command line may have removed it
			return f, nil
		}
		delete(im.cache, name+"/"+version)
	}
	v, err := im.lib.Get(name, version)
	if err != nil {
		return nil, err
	}
	m := v.Manifest()
	digest := v.Digest()
	f := &imageFiles{
		info: control.ImageInfo{Image: describe(m, hex.EncodeToString(digest[:])), Sector: m.Disk.Sector, Readback: readback(m), Own: own(m),
			Windows: slices.ContainsFunc(m.Parts, func(p manifest.Part) bool { return p.OS == "windows" })},
		files: map[string][]byte{
			"manifest.json": v.ManifestJSON(), "manifest.sig": v.Sig(), "image.torrent": v.TorrentBytes(),
			"used.bin": v.UsedBin(), "hashes.bin": v.HashesBin(), "hooks.bin": v.HooksBin(),
		},
	}
	if err := v.Close(); err != nil {
		return nil, fmt.Errorf("close image %s: %w", name, err)
	}
	if len(im.cache) >= cachedVersions {
		clear(im.cache)
	}
	im.cache[m.Name+"/"+m.Version] = f
	return f, nil
}

// List implements control.Images: the usable versions.
func (im *images) List() ([]api.Image, error) {
	list, err := im.lib.List()
	if err != nil {
		return nil, err
	}
	out := []api.Image{}
	for _, v := range list {
		if v.Err != "" {
			continue
		}
		info, err := im.Find(v.Name, v.Version)
		if err != nil {
			continue // removed meanwhile
		}
		out = append(out, info.Image)
	}
	return out, nil
}

// own lists the containers of an image: found on a disk at the same place they
// are an earlier copy of it and nobody's foreign data.
func own(m *manifest.Manifest) []api.Mark {
	var out []api.Mark
	for _, p := range m.Parts {
		if slices.Contains(sig.Kinds(), p.FS) {
			out = append(out, api.Mark{Kind: p.FS, Off: p.Start})
		}
	}
	return out
}

func describe(m *manifest.Manifest, digest string) api.Image {
	img := api.Image{
		Name: m.Name, Version: m.Version, Created: m.Created, DiskBytes: m.Disk.Size, MinBytes: m.Disk.MinSize,
		UsedBytes: manifest.Sum(m.Used()), CellBytes: m.Cell, Cells: m.Pieces(), BytesShipped: m.ShippedBytes(),
		InfoHash: m.InfoHash, Digest: digest, Label: m.Disk.Label, Boot: m.Boot, Forced: m.Forced, Partitions: []string{},
	}
	for _, p := range m.Parts {
		img.Partitions = append(img.Partitions, fmt.Sprintf("%d %s %d bytes %s", p.N, p.FS, p.Size, p.Name))
	}
	return img
}

// readback is what the agent's read-back of a right disk must yield: the
// SHA-256 over the digests of all data and zero cells, in disk order.
func readback(m *manifest.Manifest) string {
	h := sha256.New()
	zero := sha256.Sum256(make([]byte, m.Cell))
	for _, r := range manifest.TouchedCells(m.Used(), m.Cell) {
		for c := r.First; c < r.First+r.Count; c++ {
			sum := zero
			if piece, ok := m.PieceOf(c); ok {
				sum = m.PieceSHA256(piece)
			}
			h.Write(sum[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
