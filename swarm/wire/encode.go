package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"

	pp "github.com/anacrolix/torrent/peer_protocol"
)

// put encodes m into b. It cannot fail: b grows, and the message types come
// from this file only.
func put(b *bytes.Buffer, m pp.Message) {
	if err := m.WriteTo(b); err != nil {
		panic(fmt.Sprintf("encode message of type %v: %v", m.Type, err))
	}
}

// PutKeepalive appends a keepalive (BEP 3: the empty message).
func PutKeepalive(b *bytes.Buffer) { put(b, pp.Message{Keepalive: true}) }

// PutState appends a message without fields: choke, unchoke, interested, not
// interested, have-all or have-none.
func PutState(b *bytes.Buffer, t pp.MessageType) { put(b, pp.Message{Type: t}) }

// PutHave appends a have message.
func PutHave(b *bytes.Buffer, piece int) {
	put(b, pp.Message{Type: pp.Have, Index: pp.Integer(piece)})
}

// PutSuggest appends a suggest-piece message (BEP 6). Among our own kind it says:
// I have asked for this piece myself, you may ask me for it now.
func PutSuggest(b *bytes.Buffer, piece int) {
	put(b, pp.Message{Type: pp.Suggest, Index: pp.Integer(piece)})
}

// PutBitfield appends a bitfield message, one entry per piece.
func PutBitfield(b *bytes.Buffer, have []bool) {
	put(b, pp.Message{Type: pp.Bitfield, Bitfield: have})
}

// PutBlock appends a request, cancel or reject; begin and length in bytes.
func PutBlock(b *bytes.Buffer, t pp.MessageType, piece, begin, length int) {
	put(b, pp.Message{Type: t, Index: pp.Integer(piece), Begin: pp.Integer(begin), Length: pp.Integer(length)})
}

// PutExtended appends a BEP 10 message; id 0 is the handshake.
func PutExtended(b *bytes.Buffer, id byte, payload []byte) {
	put(b, pp.Message{Type: pp.Extended, ExtendedID: pp.ExtensionNumber(id), ExtendedPayload: payload})
}

// AppendPieceHeader appends a Piece message up to its payload of n bytes, which
// the caller writes from its own buffer: the codec would copy it.
func AppendPieceHeader(dst []byte, piece, begin, n int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(PieceHeader-4+n))
	dst = append(dst, byte(pp.Piece))
	dst = binary.BigEndian.AppendUint32(dst, uint32(piece))
	return binary.BigEndian.AppendUint32(dst, uint32(begin))
}

// PutFrameRequest appends a request for bytes of a piece's frame, in the other
// side's numbering: id is its number for our extension, begin and length count
// in the frame. A length may reach beyond the frame's end, which the asker does
// not know at first.
func PutFrameRequest(b *bytes.Buffer, id byte, piece, begin, length int) {
	p := make([]byte, 0, frameRequestLen)
	p = append(p, frameRequest)
	p = binary.BigEndian.AppendUint32(p, uint32(piece))
	p = binary.BigEndian.AppendUint32(p, uint32(begin))
	PutExtended(b, id, binary.BigEndian.AppendUint32(p, uint32(length)))
}

// AppendFrameHeader appends a block of a piece's frame up to its payload of n
// bytes, which the caller writes from its own buffer. frameLen is the length of
// the whole frame.
func AppendFrameHeader(dst []byte, id byte, piece, begin, frameLen, n int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(FrameHeader-4+n))
	dst = append(dst, byte(pp.Extended), id, frameBlock)
	dst = binary.BigEndian.AppendUint32(dst, uint32(piece))
	dst = binary.BigEndian.AppendUint32(dst, uint32(begin))
	return binary.BigEndian.AppendUint32(dst, uint32(frameLen))
}
