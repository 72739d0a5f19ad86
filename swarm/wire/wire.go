// Package wire is the byte level of a peer connection: the BEP 3 handshake, the
// BEP 10 extension handshake and message framing with a length limit for every
// message type, on the codecs of anacrolix/torrent. A Piece message's payload
// is not decoded: the caller reads it straight into its own buffer.
//
// It keeps no protocol state and starts no goroutine. Called by swarm/peer.
package wire

import (
	"errors"
	"fmt"
)

const (
	// PlainBlock is the request size towards standard clients, in bytes (BEP 3).
	PlainBlock = 16 << 10
	// MaxBlock is the largest request among ourselves, in bytes.
	MaxBlock = 256 << 10
	// MaxPieces bounds the number of pieces of a torrent: 4 TiB of 1 MiB cells.
	MaxPieces = 4 << 20
	// PieceHeader is the length of a Piece message before its payload, bytes.
	PieceHeader = 13
	// FrameHeader is the length of a frame block before its payload, bytes.
	FrameHeader = 4 + 1 + 1 + 1 + 12
)

// Kinds of messages of our extension: the first byte of the payload.
const (
	frameRequest = 0 // piece, begin, length: 4 bytes each
	frameBlock   = 1 // piece, begin, length of the whole frame: 4 bytes each, then bytes of the frame

	frameRequestLen = 1 + 12
)

const (
	maxExtended = 16 << 10 // bytes of one BEP 10 payload; honest handshakes are below 1 KiB
	maxUnknown  = 64 << 10 // bytes of one message of a type we do not know; it is skipped
)

// ErrProtocol is wrapped by every error that the other side caused by breaking
// the protocol, as opposed to a connection that ended.
var ErrProtocol = errors.New("peer protocol")

func violation(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, a...))
}

// BlockSize is the request size, in bytes, that a node with pieces of pieceLen
// bytes uses among its own kind: half a piece between 16 and 256 KiB, a multiple
// of PlainBlock. What is sent beside a piece waits for a block at most.
func BlockSize(pieceLen int64) int {
	n := int(min(max(pieceLen/2, PlainBlock), MaxBlock))
	return n / PlainBlock * PlainBlock
}
