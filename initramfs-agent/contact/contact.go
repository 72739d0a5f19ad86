// Package contact is the agent's side of the agent API: HTTPS to one server,
// known by its pinned key and by nothing else. Names and dates of certificates
// are ignored, since PCs with a dead battery think it is 1970; TLS 1.3 only.
//
// It sends and parses; what an answer means is decided in package deploy.
package contact

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"labswarm/api"
	"labswarm/api/order"
)

// maxAnswer limits every JSON answer, in bytes.
const maxAnswer = 128 << 10

// callTimeout bounds one request without its retries.
const callTimeout = 15 * time.Second

// Client talks to one server in one boot session. It is safe for concurrent
// use.
type Client struct {
	base   string
	http   *http.Client // calls
	stream *http.Client // events: no overall deadline
	key    ed25519.PrivateKey
	BootID string // 32 hex digits, random
	Nonce  string // 32 hex digits, random
}

// errPin is the sign that the server is not the pinned one.
var errPin = errors.New("the server's key is not the pinned one")

// New makes a session: boot id, nonce and a key of its own for the client
// certificate. pin is the server's public key.
func New(server netip.AddrPort, pin ed25519.PublicKey) (*Client, error) {
	if len(pin) != ed25519.PublicKeySize || !server.IsValid() {
		return nil, errors.New("contact: no server or no pinned key")
	}
	cert, key, err := bootCertificate()
	if err != nil {
		return nil, err
	}
	boot, nonce := make([]byte, 16), make([]byte, 16)
	for _, b := range [][]byte{boot, nonce} {
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("make boot id: %w", err)
		}
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		// The chain, the name and the dates prove nothing here; the key does.
		// VerifyConnection runs on resumed sessions too.
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
		VerifyConnection:   func(s tls.ConnectionState) error { return checkPin(s, pin) },
	}
	transport := func() *http.Transport {
		return &http.Transport{
			TLSClientConfig: cfg.Clone(), TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: callTimeout,
			DialContext:  (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		}
	}
	return &Client{
		base: "https://" + server.String(), key: key, BootID: hex.EncodeToString(boot), Nonce: hex.EncodeToString(nonce),
		http: &http.Client{Transport: transport(), CheckRedirect: noRedirect}, stream: &http.Client{Transport: transport(), CheckRedirect: noRedirect},
	}, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func checkPin(s tls.ConnectionState, pin ed25519.PublicKey) error {
	if len(s.PeerCertificates) == 0 {
		return errPin
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || !key.Equal(pin) {
		return errPin
	}
	return nil
}

// Key is the key of this boot, over which the server issues the certificate for
// the swarm.
func (c *Client) Key() ed25519.PrivateKey { return c.key }

// bootCertificate is the identity of this boot: self-signed, made anew each
// time. Its dates mean nothing.
func bootCertificate() (tls.Certificate, ed25519.PrivateKey, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make boot key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, pub, key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make boot certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, key, nil
}

// Close ends the idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.stream.CloseIdleConnections()
}

// WrongKey reports whether err means that the server is not the pinned one.
func WrongKey(err error) bool { return errors.Is(err, errPin) }

// Temporary reports whether a call may succeed when it is repeated: the server
// was not reached, or said 429 or 5xx.
func Temporary(err error) bool {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Status == http.StatusTooManyRequests || p.Status >= 500
	}
	var refused *order.RefusedError // an envelope that is malformed stays so
	if errors.As(err, &refused) {
		return false
	}
	return err != nil && !errors.Is(err, context.Canceled) && !WrongKey(err)
}

// do sends one request. A status of 400 and more comes back as *api.Problem.
func (c *Client) do(ctx context.Context, method, route string, body, into any) (status int, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var send io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("encode request %s: %w", route, err)
		}
		send = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+route, send)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("call %s: %w", route, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if f, ok := into.(*file); ok && resp.StatusCode == http.StatusOK {
		f.data, err = readLimited(resp.Body, f.limit)
		return resp.StatusCode, resp.Header, err
	}
	raw, err := readLimited(resp.Body, maxAnswer)
	if err != nil {
		return 0, nil, fmt.Errorf("call %s: %w", route, err)
	}
	if resp.StatusCode >= 400 {
		return 0, nil, fmt.Errorf("call %s: %w", route, problem(resp.StatusCode, raw))
	}
	if into != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(raw, into); err != nil {
			return 0, nil, fmt.Errorf("answer to %s: %w", route, err)
		}
	}
	return resp.StatusCode, resp.Header, nil
}

// file is an answer that is not JSON, of at most limit bytes.
type file struct {
	limit int64
	data  []byte
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("answer is longer than %d bytes", limit)
	}
	return raw, nil
}

// problem reads the body of an error answer; what is not problem+json keeps
// its status.
func problem(status int, raw []byte) *api.Problem {
	p := &api.Problem{}
	if json.Unmarshal(raw, p) != nil || p.Code == "" {
		p = &api.Problem{Title: http.StatusText(status), Code: "http_" + strconv.Itoa(status)}
	}
	p.Status = status
	return p
}

// Backoff is the pause before the n-th repetition (from 0): 1, 2, 4 .. 15 s,
// 20 % more or less, so that a room does not come back in step.
func Backoff(n int) time.Duration {
	d := min(time.Second<<min(n, 4), 15*time.Second)
	return d*4/5 + mrand.N(d*2/5)
}
