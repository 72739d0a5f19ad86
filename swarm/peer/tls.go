package peer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"labswarm/swarm/peercert"
	"labswarm/swarm/wire"
)

// First bytes of what a stranger may say.
const (
	tlsHandshake = 0x16 // a TLS record with a handshake message (RFC 8446 5.1)
	btHandshake  = 19   // length of "BitTorrent protocol" (BEP 3)
)

// maxSame is how many connections one certificate may have to a node at once.
// A host needs one, two for a moment, and three after a wrong piece.
const maxSame = 4

// secured is a TLS connection whose other side has shown a certificate of the
// swarm.
type secured struct {
	*tls.Conn
	raw  *net.TCPConn
	out  *outbox
	peer peercert.ID
	got  int64 // content bytes read before the intake took over
}

// outbox is the socket under TLS. It gathers records, which have 16 KiB at most,
// so that a block goes out in a few system calls and full segments, and gives
// back the byte that was looked at first.
type outbox struct {
	*net.TCPConn
	first   []byte
	in      *intake // nil during the handshakes
	records records

	mu   sync.Mutex // TLS may also write while it reads (key updates)
	hold bool
	buf  *[]byte // from gathers; nil while there is nothing to send
	out  *outlet // nil during the handshakes
}

const gather = 128 << 10 // bytes

var gathers = sync.Pool{New: func() any { b := make([]byte, 0, gather); return &b }}

func (o *outbox) Read(b []byte) (int, error) {
	if len(o.first) > 0 && len(b) > 0 {
		n := copy(b, o.first)
		o.first = o.first[n:]
		return n, nil
	}
	var n int
	var err error
	if o.in != nil {
		n, err = o.in.Read(b)
	} else {
		n, err = o.TCPConn.Read(b)
	}
	o.records.feed(b[:n])
	return n, err
}

func (o *outbox) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.hold {
		return o.TCPConn.Write(b)
	}
	if o.buf == nil {
		o.buf = gathers.Get().(*[]byte)
	}
	if len(*o.buf)+len(b) > gather {
		if err := o.flushLocked(); err != nil {
			return 0, err
		}
	}
	*o.buf = append(*o.buf, b...)
	return len(b), nil
}

func (o *outbox) flushLocked() error {
	if o.buf == nil {
		return nil
	}
	var err error
	if o.out != nil {
		err = o.out.write(*o.buf)
	} else {
		_, err = o.TCPConn.Write(*o.buf)
	}
	*o.buf = (*o.buf)[:0]
	return err
}

// rest gives the memory back while there is nothing to send.
func (o *outbox) rest() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf != nil && len(*o.buf) == 0 {
		gathers.Put(o.buf)
		o.buf = nil
	}
}

// writeAll sends bufs through TLS.
func (s *secured) writeAll(bufs net.Buffers) (err error) {
	s.out.mu.Lock()
	s.out.hold = true
	s.out.mu.Unlock()
	for _, b := range bufs {
		if _, err = s.Write(b); err != nil {
			break
		}
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.out.hold = false
	if err == nil {
		err = s.out.flushLocked()
	}
	return err
}

// Close closes the socket. It says no goodbye in TLS, which might block: pieces
// are hashed, so a cut says nothing that could be believed.
func (s *secured) Close() error { return s.raw.Close() }

// rawTCP returns the socket under a connection, nil when there is none.
func rawTCP(nc net.Conn) *net.TCPConn {
	switch c := nc.(type) {
	case *net.TCPConn:
		return c
	case *secured:
		return c.raw
	}
	return nil
}

// owner is the name in the other side's certificate, "" without one.
func owner(nc net.Conn) peercert.ID {
	if s, ok := nc.(*secured); ok {
		return s.peer
	}
	return peercert.ID{}
}

// pass returns the node's pass, nil for a swarm without TLS.
func (n *Node) pass() (*peercert.Pass, error) {
	if n.cfg.Pass == nil {
		return nil, nil // a swarm without TLS: tests and tools
	}
	p, err := n.cfg.Pass()
	if err != nil {
		return nil, fmt.Errorf("no pass for the swarm: %w", err)
	}
	if p == nil || p.InfoHash() != n.cfg.InfoHash {
		return nil, errors.New("the pass is for another swarm")
	}
	return p, nil
}

// secure makes a dialled connection one with p, under TLS if the swarm has it.
func (n *Node) secure(nc net.Conn, p Peer) (net.Conn, error) {
	pass, err := n.pass()
	if err != nil || pass == nil {
		return nc, err
	}
	raw := rawTCP(nc)
	if raw == nil {
		return nil, fmt.Errorf("secure connection to %s: not TCP", p.name())
	}
	if err := nc.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	out := &outbox{TCPConn: raw}
	tc := tls.Client(out, pass.Client(p.ID, p.Server))
	if err := tc.Handshake(); err != nil { //nolint:noctx // ended by the deadline and by closing the socket
		return nil, fmt.Errorf("TLS handshake with %s: %w", p.name(), err)
	}
	id, err := pass.Of(tc.ConnectionState())
	if err != nil {
		return nil, err
	}
	out.records.on = true // the other side waits for our greeting: nothing of it has come
	return &secured{Conn: tc, raw: raw, out: out, peer: id}, nil
}

// greet finds out which node a new connection is for, and returns it as that
// node may use it. Nobody gets a byte of ours before he has said the right
// thing: a certificate of the swarm, or, where plain peers are admitted, the
// swarm's info-hash.
func (m *Mux) greet(nc net.Conn) (*Node, net.Conn, wire.Handshake, error) {
	var none wire.Handshake
	if err := nc.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, nil, none, fmt.Errorf("set deadline: %w", err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(nc, first); err != nil {
		return nil, nil, none, fmt.Errorf("read the first byte: %w", err)
	}
	switch {
	case first[0] == tlsHandshake:
		return m.greetTLS(nc, first)
	case first[0] == btHandshake && m.plain():
		hs, err := wire.ReadHandshake(io.MultiReader(bytes.NewReader(first), nc))
		if err != nil {
			return nil, nil, none, err
		}
		n := m.node(hs.InfoHash)
		if n == nil || !n.plain() {
			return nil, nil, none, fmt.Errorf("no swarm %x for plain peers here", hs.InfoHash)
		}
		return n, nc, hs, nil
	}
	return nil, nil, none, fmt.Errorf("first byte %#02x: neither TLS nor a plain peer that is admitted", first[0])
}

// greetTLS shakes hands twice: the ClientHello names the swarm, and what the
// peer says in BitTorrent's handshake must be the same.
func (m *Mux) greetTLS(nc net.Conn, first []byte) (*Node, net.Conn, wire.Handshake, error) {
	var none wire.Handshake
	raw := rawTCP(nc)
	if raw == nil {
		return nil, nil, none, errors.New("not TCP")
	}
	var n *Node
	var pass *peercert.Pass
	out := &outbox{TCPConn: raw, first: first}
	tc := tls.Server(out, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		ih, ok := peercert.InfoHashOf(h.ServerName)
		if ok {
			n = m.node(ih)
		}
		if n == nil || !n.allows(raw) {
			return nil, fmt.Errorf("no swarm %q for this address", h.ServerName)
		}
		var err error
		if pass, err = n.pass(); err != nil {
			return nil, err
		}
		if pass == nil {
			return nil, errors.New("this swarm has no TLS")
		}
		return pass.Server(n.cfg.Admit), nil
	}})
	if err := tc.Handshake(); err != nil { //nolint:noctx // ended by the deadline and by closing the socket
		return nil, nil, none, fmt.Errorf("TLS handshake: %w", err)
	}
	id, err := pass.Of(tc.ConnectionState())
	if err != nil {
		return nil, nil, none, err
	}
	hs, err := wire.ReadHandshake(tc)
	switch {
	case err != nil:
		return nil, nil, none, err
	case hs.InfoHash != n.cfg.InfoHash:
		return nil, nil, none, fmt.Errorf("%v asked for swarm %x under the certificate of %x", id, hs.InfoHash, n.cfg.InfoHash)
	}
	return n, &secured{Conn: tc, raw: raw, out: out, peer: id}, hs, nil
}

// plain reports whether connections without TLS are admitted.
func (n *Node) plain() bool { return n.cfg.Pass == nil || n.cfg.PlainPeers }

// allows reports whether the address of a connection may connect to us.
func (n *Node) allows(nc net.Conn) bool {
	return n.cfg.AllowPeer == nil || n.cfg.AllowPeer(remoteAddr(nc).Addr())
}

// Expel closes the connections that a peer of the given name opened to us: it
// has left the swarm, or has been sent away.
func (n *Node) Expel(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.src == nil && host != "" && owner(c.nc).Host == host {
			c.close(fmt.Errorf("%s is no member of the swarm any more", host))
		}
	}
}

// book counts a connection of a certificate's owner, or says that there are
// enough. mu is held.
func (n *Node) book(id peercert.ID) error {
	if id.Host == "" {
		return nil // without TLS; Mux and MaxPeers bound those
	}
	if n.same[id] >= maxSame {
		return fmt.Errorf("%v has %d connections already", id, maxSame)
	}
	n.same[id]++
	return nil
}

// unbook takes back one book. mu is held.
func (n *Node) unbook(id peercert.ID) {
	if n.same[id]--; n.same[id] <= 0 {
		delete(n.same, id)
	}
}
