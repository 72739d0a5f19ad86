package wire

import (
	"bytes"
	"fmt"

	"github.com/anacrolix/torrent/bencode"
)

// ExtensionName is the key of our own extension in the "m" dictionary and of
// its parameters beside it in the BEP 10 handshake.
const ExtensionName = "labswarm"

// OwnExtensionID is the message number under which we accept messages of our
// own extension: requests for bytes of a frame and the answers to them, both
// only after both sides have offered frames.
const OwnExtensionID = 1

// FrameVersion is the value of "z" in our parameters: the version of the
// messages about frames.
const FrameVersion = 1

// Own is the parameters of our extension.
type Own struct {
	Block  int64 `bencode:"blk,ignore_unmarshal_type_error"`         // largest request we serve, bytes
	Frames int64 `bencode:"z,omitempty,ignore_unmarshal_type_error"` // FrameVersion: compressed cells are understood
}

// Extended is a BEP 10 extension handshake, reduced to what we use.
type Extended struct {
	M        map[string]int64 `bencode:"m,ignore_unmarshal_type_error"`
	V        string           `bencode:"v,omitempty,ignore_unmarshal_type_error"`    // client name and version
	Reqq     int64            `bencode:"reqq,omitempty,ignore_unmarshal_type_error"` // requests it queues
	Labswarm Own              `bencode:"labswarm,omitempty,ignore_unmarshal_type_error"`
}

// NewExtended returns our handshake. block is the largest request served in
// bytes, reqq the number of requests queued.
func NewExtended(block, reqq int) Extended {
	return Extended{
		M:        map[string]int64{ExtensionName: OwnExtensionID},
		V:        ExtensionName,
		Reqq:     int64(reqq),
		Labswarm: Own{Block: int64(block)},
	}
}

// IsOwn reports whether the other side speaks our extension.
func (e Extended) IsOwn() bool {
	id := e.M[ExtensionName]
	return id > 0 && id < 256 && e.Labswarm.Block >= PlainBlock
}

// OwnID is the message number under which the other side accepts messages of our
// extension; only meaningful when IsOwn.
func (e Extended) OwnID() byte { return byte(e.M[ExtensionName]) }

// HasFrames reports whether the other side understands compressed cells.
func (e Extended) HasFrames() bool { return e.IsOwn() && e.Labswarm.Frames == FrameVersion }

// BlockWith returns the request size in bytes between us, who prefer ours, and
// a peer that sent e: the smaller of both among our own kind, 16 KiB otherwise.
func (e Extended) BlockWith(ours int) int {
	if !e.IsOwn() {
		return PlainBlock
	}
	n := int(min(e.Labswarm.Block, int64(ours), MaxBlock))
	return max(n/PlainBlock*PlainBlock, PlainBlock)
}

// Marshal encodes the handshake's payload.
func (e Extended) Marshal() ([]byte, error) {
	b, err := bencode.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode extension handshake: %w", err)
	}
	return b, nil
}

// ParseExtended decodes the payload of an extension handshake. Trailing bytes
// are allowed: some clients send them.
func ParseExtended(b []byte) (e Extended, err error) {
	// The library re-panics on runtime errors inside its reflection; a peer's
	// bytes must never end the process.
	defer func() {
		if r := recover(); r != nil {
			err = violation("extension handshake: %v", r)
		}
	}()
	if len(b) > maxExtended {
		return Extended{}, violation("extension handshake of %d bytes", len(b))
	}
	d := bencode.NewDecoder(bytes.NewReader(b))
	d.MaxStrLen = int64(len(b)) // its own limit is 128 MiB, allocated before reading
	if err := d.Decode(&e); err != nil {
		return Extended{}, violation("extension handshake: %v", err)
	}
	return e, nil
}
