// Package bundle is an image version as the agent holds it: manifest, torrent
// and mask, with every link of the chain of trust checked: pinned image key ->
// signature -> manifest -> digest in the order -> side files -> torrent.
//
// It does no I/O of its own; the caller says how a file is fetched. Called by
// package deploy.
package bundle

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"

	"labswarm/api"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/images/mask"
	"labswarm/images/metainfo"
)

// maxSide limits used.bin and hashes.bin, in bytes: hashes of 1<<20 cells.
const maxSide = 32 << 20

// Bundle is a verified image version. It is immutable.
type Bundle struct {
	Manifest *manifest.Manifest
	Torrent  *metainfo.Torrent
	Masker   *mask.Masker
	Digest   string   // hex SHA-256 of manifest.json, as orders name it
	Hooks    [][]byte // content of each hook of the manifest, compared with its digest
}

// Fetch returns one file of the image; it fails when the file is longer than
// limit bytes.
type Fetch func(name string, limit int64) ([]byte, error)

// Load fetches and checks an image version. wantDigest is what the order says.
// Errors of the content are *api.Fault with CodeBadImage; errors of fetching
// come back as they are.
func Load(fetch Fetch, keys []ed25519.PublicKey, wantDigest string) (*Bundle, error) {
	raw, err := fetch("manifest.json", manifest.MaxJSON)
	if err != nil {
		return nil, err
	}
	sum := manifest.Digest(raw)
	digest := hex.EncodeToString(sum[:])
	if digest != wantDigest {
		return nil, bad("the manifest is %s, the order names %s", digest, wantDigest)
	}
	sig, err := fetch("manifest.sig", manifest.SigSize)
	if err != nil {
		return nil, err
	}
	if err := manifest.VerifySig(keys, raw, sig); err != nil {
		return nil, bad("%v", err)
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		return nil, bad("%v", err)
	}
	used, err := side(fetch, "used.bin", m.UsedBlob)
	if err != nil {
		return nil, err
	}
	hashes, err := side(fetch, "hashes.bin", m.HashesBlob)
	if err != nil {
		return nil, err
	}
	if m, err = manifest.Load(raw, used, hashes); err != nil {
		return nil, bad("%v", err)
	}
	hooks, err := hooks(fetch, m)
	if err != nil {
		return nil, err
	}
	tor, err := fetch("image.torrent", metainfo.MaxSize)
	if err != nil {
		return nil, err
	}
	t, err := metainfo.Parse(tor)
	if err != nil {
		return nil, bad("%v", err)
	}
	if err := match(m, t); err != nil {
		return nil, err
	}
	return &Bundle{Manifest: m, Torrent: t, Masker: mask.New(m), Digest: digest, Hooks: hooks}, nil
}

// hooks fetches the content of all hooks, when there is any.
func hooks(fetch Fetch, m *manifest.Manifest) ([][]byte, error) {
	var bin []byte
	if n := m.Personalise.Bytes(); n > 0 {
		var err error
		if bin, err = fetch("hooks.bin", n); err != nil {
			return nil, err
		}
	}
	out, err := m.AttachHooks(bin)
	if err != nil {
		return nil, bad("%v", err)
	}
	return out, nil
}

func side(fetch Fetch, name string, b *manifest.Blob) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	if b.Len > maxSide {
		return nil, bad("%s of %d bytes, this agent takes %d", name, b.Len, maxSide)
	}
	return fetch(name, b.Len)
}

// match checks manifest and torrent against each other and what the agent
// relies on: the table lies in cell 0, and cell 0 travels.
func match(m *manifest.Manifest, t *metainfo.Torrent) error {
	switch {
	case hex.EncodeToString(t.InfoHash[:]) != m.InfoHash:
		return bad("the torrent is %x, the manifest names %s", t.InfoHash, m.InfoHash)
	case len(t.Hashes) != m.Pieces() || t.PieceLength != m.Cell:
		return bad("the torrent has %d pieces of %d bytes, the manifest %d cells of %d", len(t.Hashes), t.PieceLength, m.Pieces(), m.Cell)
	case m.Cell < part.HeadSize:
		return bad("cells of %d bytes do not hold the partition table", m.Cell)
	}
	if p, ok := m.PieceOf(0); !ok || p != 0 {
		return bad("cell 0, which holds the partition table, is not in the image")
	}
	return nil
}

func bad(format string, args ...any) error {
	return &api.Fault{Code: api.CodeBadImage, Text: fmt.Sprintf(format, args...), Err: errors.New("the image was refused, nothing was written")}
}

// ShippedBytes is the size of all data cells.
func (b *Bundle) ShippedBytes() int64 { return b.Manifest.ShippedBytes() }

// PieceHash returns the SHA-1 of a piece.
func (b *Bundle) PieceHash(i int) [20]byte { return b.Torrent.Hashes[i] }
