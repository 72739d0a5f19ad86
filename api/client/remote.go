package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const dialLimit = 10 * time.Second

// Remote is a server's admin API over the network.
type Remote struct {
	Addr        string // host:port
	Token       string // lsw_...
	Fingerprint string // of its key: the only thing about it that is trusted
}

// WrongKeyError says that the machine that answers has another key than the
// pinned one.
type WrongKeyError struct{ Addr, Want, Got string }

// Error says what that means.
func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("reach the server at %s: IT HAS ANOTHER KEY than the one pinned here, so nothing was sent to it, the token neither: either its key was made anew, or another machine answers in its place; pinned %s, got %s", e.Addr, e.Want, e.Got)
}

// Fingerprint names the key of a certificate, given as DER: SHA-256 of its
// SubjectPublicKeyInfo (RFC 5280, 4.1), as ssh-keygen writes such things.
func Fingerprint(der []byte) string {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Ask connects to a server and returns the fingerprint of its key. It says
// nothing, least of all a token.
func Ask(ctx context.Context, addr string) (string, error) {
	got := ""
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialLimit}, Config: pinned(addr, func(f string) error {
		got = f
		return nil
	})}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", &UnreachableError{Socket: addr, Remote: true, Err: err}
	}
	return got, conn.Close()
}

// pinned is a TLS configuration that trusts keys by check only. Names and dates
// are not looked at, as ssh does not.
func pinned(addr string, check func(fingerprint string) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection compares the key, on resumed sessions too
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("no certificate from " + addr)
			}
			return check(Fingerprint(cs.PeerCertificates[0].Raw))
		},
	}
}

// NewRemote returns a client of a server elsewhere; nothing is opened yet.
func NewRemote(r Remote) *Client {
	conf := pinned(r.Addr, func(got string) error {
		if got != r.Fingerprint {
			return &WrongKeyError{Addr: r.Addr, Want: r.Fingerprint, Got: got}
		}
		return nil
	})
	tr := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialLimit}).DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: dialLimit,
		MaxIdleConns:        2,
		IdleConnTimeout:     time.Minute,
	}
	return &Client{
		socket: r.Addr, base: "https://" + r.Addr, token: r.Token,
		short:  &http.Client{Transport: tr, Timeout: 60 * time.Second, CheckRedirect: stay},
		stream: &http.Client{Transport: tr, CheckRedirect: stay},
	}
}

// stay follows no redirect: the API has none, and the token must not travel.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Remote reports whether the server is reached over the network.
func (c *Client) Remote() bool { return c.token != "" }
