package peercert

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
)

// Protocol is the ALPN name of peer connections (RFC 7301): a certificate for
// another listener of ours is of no use here, and the other way round.
const Protocol = "labswarm-peer/1"

// ServerName is what a child puts into its ClientHello (RFC 6066 3), so that a
// listener with many swarms knows which certificate to show.
func ServerName(infoHash [20]byte) string { return hex.EncodeToString(infoHash[:]) }

// InfoHashOf reads a server name; false when it names no swarm.
func InfoHashOf(serverName string) (ih [20]byte, ok bool) {
	if len(serverName) != 2*len(ih) {
		return ih, false
	}
	_, err := hex.Decode(ih[:], []byte(serverName))
	return ih, err == nil
}

// base is what both sides share: TLS 1.3, no tickets, so that every connection
// shows its certificate, and full records from the first byte on. X25519 alone:
// the hybrid key exchange would double the handshake's bytes.
func (p *Pass) base() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{{Certificate: [][]byte{p.der}, PrivateKey: p.key}},
		NextProtos:                  []string{Protocol},
		CurvePreferences:            []tls.CurveID{tls.X25519},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// Server returns the settings of the accepting side. admit, if not nil, has the
// last word on a certificate of this swarm.
func (p *Pass) Server(admit func(ID) error) *tls.Config {
	c := p.base()
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := p.Of(cs)
		if err == nil && admit != nil {
			err = admit(id)
		}
		return err
	}
	return c
}

// Client returns the settings of the dialling side, which wants the peer of the
// given name, and a seed if seed is set.
func (p *Pass) Client(host string, seed bool) *tls.Config {
	c := p.base()
	c.ServerName = ServerName(p.infoHash)
	c.InsecureSkipVerify = true //nolint:gosec // VerifyConnection checks the authority; names and dates of the Web prove nothing here
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := p.Of(cs)
		switch {
		case err != nil:
			return err
		case id.Host != host:
			return fmt.Errorf("%s answered in place of %q", id, host)
		case seed && !id.Seed:
			return fmt.Errorf("%s is no seed", id)
		}
		return nil
	}
	return c
}

// Of returns who is on the other side of a connection.
func (p *Pass) Of(cs tls.ConnectionState) (ID, error) {
	switch {
	case cs.Version < tls.VersionTLS13:
		return ID{}, errors.New("TLS older than 1.3")
	case cs.NegotiatedProtocol != Protocol:
		return ID{}, fmt.Errorf("the other side speaks %q, not %q", cs.NegotiatedProtocol, Protocol)
	case len(cs.PeerCertificates) != 1:
		return ID{}, fmt.Errorf("%d certificates, one is expected", len(cs.PeerCertificates))
	}
	return p.check(cs.PeerCertificates[0])
}
