package wire

import (
	"fmt"
	"io"

	pp "github.com/anacrolix/torrent/peer_protocol"
)

// HandshakeLen is the length of a BEP 3 handshake in bytes.
const HandshakeLen = len(pp.Protocol) + 8 + 20 + 20

// Handshake is the first thing each side of a connection says (BEP 3). It is
// framed here and not by the library's Handshake function because a Mux must
// see the info-hash before it answers: who asks for a swarm we do not have
// gets no byte.
type Handshake struct {
	Bits     pp.PeerExtensionBits
	InfoHash [20]byte
	PeerID   [20]byte
}

// NewHandshake returns ours: fast extension (BEP 6) and extension protocol
// (BEP 10) offered.
func NewHandshake(infoHash, peerID [20]byte) Handshake {
	return Handshake{
		Bits:     pp.NewPeerExtensionBytes(pp.ExtensionBitFast, pp.ExtensionBitLtep),
		InfoHash: infoHash,
		PeerID:   peerID,
	}
}

// Append appends the handshake's bytes to dst.
func (h Handshake) Append(dst []byte) []byte {
	dst = append(dst, pp.Protocol...)
	dst = append(dst, h.Bits[:]...)
	dst = append(dst, h.InfoHash[:]...)
	return append(dst, h.PeerID[:]...)
}

// ReadHandshake reads exactly one handshake and not a byte more.
func ReadHandshake(r io.Reader) (Handshake, error) {
	var b [HandshakeLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Handshake{}, fmt.Errorf("read handshake: %w", err)
	}
	p := b[:]
	if string(p[:len(pp.Protocol)]) != pp.Protocol {
		return Handshake{}, violation("not a BitTorrent handshake: %q", p[:len(pp.Protocol)])
	}
	p = p[len(pp.Protocol):]
	var h Handshake
	p = p[copy(h.Bits[:], p):]
	p = p[copy(h.InfoHash[:], p):]
	copy(h.PeerID[:], p)
	return h, nil
}
