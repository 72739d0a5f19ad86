package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	pp "github.com/anacrolix/torrent/peer_protocol"
)

// Message is one received message, without a Piece's payload.
type Message struct {
	Type      pp.MessageType
	Keepalive bool
	Unknown   bool // a type we do not know; its payload was skipped
	// Index, Begin, Length of Have, Request, Cancel, Reject and Piece. For Piece
	// Length is the payload's, to be read with Read.
	Index, Begin, Length int
	Bitfield             []bool // exactly one entry per piece
	// Frame marks messages of our extension. With Type Request: bytes of the
	// piece's frame are wanted. With Type Piece: the payload is bytes of the
	// frame, which is FrameLen bytes long (below 2^31, else unchecked).
	Frame    bool
	FrameLen int
	ExtID    byte   // BEP 10 message number, 0 = handshake
	Ext      []byte // BEP 10 payload
}

// Reader splits a connection's bytes into messages.
type Reader struct {
	// Begun is called when the first byte of a message is
	// there, before the rest is waited for: from now on the other side owes bytes.
	// nil: not called.
	Begun func() error

	br     *bufio.Reader
	dec    pp.Decoder
	pieces int
	left   int // bytes of a Piece payload the caller has not read
}

// readBuffer is small on purpose: what it holds of a Piece payload is copied
// once more, the rest goes from the socket straight into the piece buffer.
const readBuffer = 4 << 10 // bytes

// NewReader returns a Reader for a torrent of the given number of pieces.
func NewReader(r io.Reader, pieces int) *Reader {
	br := bufio.NewReaderSize(r, readBuffer)
	return &Reader{br: br, pieces: pieces, dec: pp.Decoder{R: br, MaxLength: pp.Integer(maxLength(pieces))}}
}

// maxLength is the longest message that goes through the codec.
func maxLength(pieces int) int {
	return max(bitfieldLen(pieces), maxExtended+2)
}

func bitfieldLen(pieces int) int { return 1 + (pieces+7)/8 }

// Next returns the next message. What the caller left unread of the last
// Piece's payload is skipped. io.EOF means that the other side closed the
// connection between two messages.
func (r *Reader) Next() (Message, error) {
	if r.left > 0 {
		if _, err := r.br.Discard(r.left); err != nil {
			return Message{}, fmt.Errorf("skip piece payload: %w", unexpected(err))
		}
		r.left = 0
	}
	if _, err := r.br.Peek(1); err == nil && r.Begun != nil {
		if err := r.Begun(); err != nil {
			return Message{}, err
		}
	}
	head, err := r.br.Peek(4)
	if err != nil {
		if len(head) > 0 {
			err = unexpected(err)
		}
		return Message{}, fmt.Errorf("read message: %w", err)
	}
	n := binary.BigEndian.Uint32(head)
	if n == 0 {
		_, err = r.br.Discard(4)
		return Message{Keepalive: true}, err
	}
	head, err = r.br.Peek(5)
	if err != nil {
		return Message{}, fmt.Errorf("read message type: %w", unexpected(err))
	}
	t := pp.MessageType(head[4])
	known, err := r.checkLength(t, n)
	if err != nil {
		return Message{}, err
	}
	switch {
	case !known:
		if _, err := r.br.Discard(4 + int(n)); err != nil {
			return Message{}, fmt.Errorf("skip message of type %d: %w", t, unexpected(err))
		}
		return Message{Type: t, Unknown: true}, nil
	case t == pp.Piece:
		return r.pieceHeader(int(n) - (PieceHeader - 4))
	case t == pp.Extended:
		if head, err = r.br.Peek(6); err != nil {
			return Message{}, fmt.Errorf("read extension id: %w", unexpected(err))
		}
		if head[5] == OwnExtensionID {
			return r.own(int(n))
		}
		if n > maxExtended+2 {
			return Message{}, violation("extension message %d has %d bytes", head[5], n)
		}
	}
	return r.decode()
}

// checkLength refuses a message whose length cannot be right for its type, and
// says whether we know the type. n is the length after the length field.
func (r *Reader) checkLength(t pp.MessageType, n uint32) (known bool, err error) {
	var lo, hi uint32
	switch t {
	case pp.Choke, pp.Unchoke, pp.Interested, pp.NotInterested, pp.HaveAll, pp.HaveNone:
		lo, hi = 1, 1
	case pp.Port:
		lo, hi = 3, 3
	case pp.Have, pp.Suggest, pp.AllowedFast:
		lo, hi = 5, 5
	case pp.Request, pp.Cancel, pp.Reject:
		lo, hi = 13, 13
	case pp.Bitfield:
		lo = uint32(bitfieldLen(r.pieces))
		hi = lo
	case pp.Extended:
		lo, hi = 2, max(maxExtended+2, FrameHeader-4+MaxBlock)
	case pp.Piece:
		lo, hi = PieceHeader-4, PieceHeader-4+MaxBlock
	default:
		if n > maxUnknown {
			return false, violation("message of unknown type %d has %d bytes", t, n)
		}
		return false, nil
	}
	if n < lo || n > hi {
		return false, violation("message of type %v has %d bytes, want %d to %d", t, n, lo, hi)
	}
	return true, nil
}

// pieceHeader takes a Piece message's fields and leaves its payload of n bytes
// to the caller.
func (r *Reader) pieceHeader(n int) (Message, error) {
	var h [PieceHeader]byte
	if _, err := io.ReadFull(r.br, h[:]); err != nil {
		return Message{}, fmt.Errorf("read piece header: %w", unexpected(err))
	}
	m := Message{Type: pp.Piece, Length: n}
	var err error
	if m.Index, err = r.index(pp.Integer(binary.BigEndian.Uint32(h[5:]))); err != nil {
		return Message{}, err
	}
	if m.Begin, err = offset(pp.Integer(binary.BigEndian.Uint32(h[9:]))); err != nil {
		return Message{}, err
	}
	r.left = n
	return m, nil
}

// own takes a message of our extension, n bytes long after the length field; the
// payload of a frame block is left to the caller.
func (r *Reader) own(n int) (Message, error) {
	if n < FrameHeader-4 {
		return Message{}, violation("message of our extension has %d bytes", n)
	}
	var h [FrameHeader]byte
	if _, err := io.ReadFull(r.br, h[:]); err != nil {
		return Message{}, fmt.Errorf("read frame message: %w", unexpected(err))
	}
	m := Message{Frame: true}
	var err error
	if m.Index, err = r.index(pp.Integer(binary.BigEndian.Uint32(h[7:]))); err != nil {
		return Message{}, err
	}
	if m.Begin, err = offset(pp.Integer(binary.BigEndian.Uint32(h[11:]))); err != nil {
		return Message{}, err
	}
	last, err := offset(pp.Integer(binary.BigEndian.Uint32(h[15:])))
	if err != nil {
		return Message{}, err
	}
	left := n - (FrameHeader - 4)
	switch kind := h[6]; {
	case kind == frameRequest && left == 0:
		m.Type, m.Length = pp.Request, last
	case kind == frameBlock:
		m.Type, m.FrameLen, m.Length, r.left = pp.Piece, last, left, left
	default:
		return Message{}, violation("message of our extension of kind %d has %d bytes", kind, n)
	}
	return m, nil
}

// decode reads one message through the library's codec.
func (r *Reader) decode() (Message, error) {
	var p pp.Message
	if err := r.dec.Decode(&p); err != nil {
		return Message{}, fmt.Errorf("decode message: %w", unexpected(err))
	}
	m := Message{Type: p.Type}
	var err error
	switch p.Type {
	case pp.Have, pp.Suggest, pp.AllowedFast:
		m.Index, err = r.index(p.Index)
	case pp.Request, pp.Cancel, pp.Reject:
		if m.Index, err = r.index(p.Index); err != nil {
			break
		}
		if m.Begin, err = offset(p.Begin); err != nil {
			break
		}
		m.Length, err = offset(p.Length)
	case pp.Bitfield:
		for _, spare := range p.Bitfield[r.pieces:] {
			if spare {
				err = violation("bitfield has spare bits set")
			}
		}
		m.Bitfield = p.Bitfield[:r.pieces:r.pieces]
	case pp.Extended:
		m.ExtID, m.Ext = byte(p.ExtendedID), p.ExtendedPayload
	}
	return m, err
}

func (r *Reader) index(i pp.Integer) (int, error) {
	if uint32(i) >= uint32(r.pieces) {
		return 0, violation("piece %d of %d", uint32(i), r.pieces)
	}
	return int(i), nil
}

// offset checks a Begin or Length field: both are below a piece's length, which
// is far below 2^31.
func offset(i pp.Integer) (int, error) {
	if uint32(i) >= 1<<31 {
		return 0, violation("offset %d", uint32(i))
	}
	return int(i), nil
}

// Read reads from the payload of the Piece message that Next returned last, at
// most what is left of it; io.EOF at its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.br.Read(p[:min(len(p), r.left)])
	r.left -= n
	if err != nil {
		err = unexpected(err)
	}
	return n, err
}

// Buffered is the number of bytes that were read from the connection and not
// yet returned.
func (r *Reader) Buffered() int { return r.br.Buffered() }

// unexpected turns the end of input inside a message into an error that is not
// mistaken for a clean end.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // bufio returns io.EOF bare
		return io.ErrUnexpectedEOF
	}
	return err
}
