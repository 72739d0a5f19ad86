// Package metainfo builds and reads image.torrent, the BitTorrent v1 file (BEP 3, BEP 27) of an image version.
//
// It adds nothing to the format: a standard client that downloads the torrent gets the data cells one after the
// other. There is no creation date and no announce address (the order names the tracker), so the same image always
// gives the same bytes. The library builds it; the seeder, the swarm and the agent parse it.
package metainfo

import (
	"crypto/sha1" // BEP 3 pieces are SHA-1; the signed SHA-256 of the manifest is what is trusted
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/anacrolix/torrent/bencode"
)

// MaxSize limits image.torrent: 1<<20 pieces of 20 bytes and 4 KiB for the rest.
const MaxSize = 20<<20 + 4096

// Torrent is the part of image.torrent that a swarm needs.
type Torrent struct {
	InfoHash    [20]byte
	Name        string // "<image>-<version>"
	PieceLength int64  // bytes; the image's cell size
	Hashes      [][20]byte
}

// Length returns the payload size in bytes: whole cells, the last one padded.
func (t *Torrent) Length() int64 { return t.PieceLength * int64(len(t.Hashes)) }

// Both structs list their fields in the order of their keys, which bencode demands.
type file struct {
	CreatedBy string        `bencode:"created by"`
	Info      bencode.Bytes `bencode:"info"`
}

type info struct {
	Length      int64  `bencode:"length"`
	Name        string `bencode:"name"`
	PieceLength int64  `bencode:"piece length"`
	Pieces      []byte `bencode:"pieces"`
	Private     int64  `bencode:"private"` // BEP 27: no DHT, no peer exchange
}

// Build makes image.torrent for the given cell size (bytes) and the SHA-1 of every data cell in order.
func Build(name string, cell int64, sha1s [][20]byte) (torrent []byte, infohash [20]byte, err error) {
	pieces := make([]byte, 0, 20*len(sha1s))
	for _, h := range sha1s {
		pieces = append(pieces, h[:]...)
	}
	in := info{Length: cell * int64(len(sha1s)), Name: name, PieceLength: cell, Pieces: pieces, Private: 1}
	if err := in.check(); err != nil {
		return nil, infohash, fmt.Errorf("build torrent %q: %w", name, err)
	}
	raw, err := bencode.Marshal(in)
	if err != nil {
		return nil, infohash, fmt.Errorf("build torrent %q: %w", name, err)
	}
	torrent, err = bencode.Marshal(file{CreatedBy: "labswarm", Info: raw})
	if err != nil {
		return nil, infohash, fmt.Errorf("build torrent %q: %w", name, err)
	}
	return torrent, sha1.Sum(raw), nil
}

// Parse reads image.torrent. It fails on a file that is too large, is not exactly what Build makes for the same
// content, is not private, or has sizes that do not fit each other.
func Parse(data []byte) (*Torrent, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("parse torrent: %d bytes exceed the limit of %d", len(data), MaxSize)
	}
	var f file
	if err := bencode.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("parse torrent: %w", err)
	}
	var in info
	if err := bencode.Unmarshal(f.Info, &in); err != nil {
		return nil, fmt.Errorf("parse torrent: info: %w", err)
	}
	if err := in.check(); err != nil {
		return nil, fmt.Errorf("parse torrent: %w", err)
	}
	t := &Torrent{InfoHash: sha1.Sum(f.Info), Name: in.Name, PieceLength: in.PieceLength}
	t.Hashes = make([][20]byte, len(in.Pieces)/20)
	for i := range t.Hashes {
		copy(t.Hashes[i][:], in.Pieces[20*i:])
	}
	// The decoder is lenient about unknown keys, order and number spelling. Building again is not.
	again, hash, err := Build(t.Name, t.PieceLength, t.Hashes)
	if err != nil || hash != t.InfoHash || string(again) != string(data) {
		return nil, errors.New("parse torrent: not in the form labswarm writes")
	}
	return t, nil
}

func (in *info) check() error {
	n := int64(len(in.Pieces) / 20)
	switch {
	case in.Private != 1:
		return errors.New("torrent is not private")
	case in.Name == "" || len(in.Name) > 128 || strings.ContainsAny(in.Name, "/\\\x00") || in.Name[0] == '.':
		return fmt.Errorf("name %.40q is not allowed", in.Name)
	case in.PieceLength < 16<<10 || in.PieceLength > 64<<20:
		return fmt.Errorf("piece length %d is out of range", in.PieceLength)
	case len(in.Pieces)%20 != 0 || n == 0 || n > MaxSize/20 || n > math.MaxInt64/in.PieceLength:
		return fmt.Errorf("%d bytes of piece hashes", len(in.Pieces))
	case in.Length != n*in.PieceLength:
		return fmt.Errorf("length %d does not fit %d pieces of %d bytes", in.Length, n, in.PieceLength)
	}
	return nil
}
