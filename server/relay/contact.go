package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"labswarm/api"
)

const (
	callTime  = 15 * time.Second // for a report
	fileTime  = 5 * time.Minute  // for one image file, 80 MiB at most
	maxAnswer = 4 << 20          // bytes of an answer in JSON
)

// errPin says that the server is not the pinned one.
var errPin = errors.New("the server's key is not the one named by --server-key: either the address is another server's, or somebody stands in between")

// Fingerprint is SHA-256 over the server's raw ed25519 key.
type Fingerprint [sha256.Size]byte

// ReadPin reads a server key as people hand it on: "sha256:" and 64 hex digits,
// a file that holds this, or a file with the key as PEM (PUBLIC KEY).
func ReadPin(text string) (Fingerprint, error) {
	if p, ok := parsePin(text); ok {
		return p, nil
	}
	raw, err := os.ReadFile(text)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("read server key %q: it is neither sha256:HEX nor a file that can be read: %w", text, err)
	}
	if p, ok := parsePin(strings.TrimSpace(string(raw))); ok {
		return p, nil
	}
	if block, _ := pem.Decode(raw); block != nil && block.Type == "PUBLIC KEY" {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if k, ok := key.(ed25519.PublicKey); ok && err == nil {
			return sha256.Sum256(k), nil
		}
	}
	return Fingerprint{}, fmt.Errorf("read server key %q: want sha256:HEX as `labswarm relay add` prints it, or an ed25519 key as PEM (PUBLIC KEY)", text)
}

func parsePin(text string) (p Fingerprint, ok bool) {
	digits, ok := strings.CutPrefix(text, "sha256:")
	if !ok || len(digits) != 2*len(p) {
		return p, false
	}
	_, err := hex.Decode(p[:], []byte(digits))
	return p, err == nil
}

// contact talks to the server: known by its pinned key and by nothing else.
type contact struct {
	base  string
	token string
	key   ed25519.PrivateKey // of this process; certificates of swarms are made over it
	http  *http.Client
}

// newContact makes the client. from is the address to call from, which is the
// one that hosts are told; invalid = the system chooses.
func newContact(server, token string, pin Fingerprint, from netip.Addr) (*contact, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	d := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	if from.IsValid() && !from.IsUnspecified() {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			// The name and the dates of a certificate prove nothing here; the key does.
			InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
			VerifyConnection:   func(s tls.ConnectionState) error { return checkPin(s, pin) },
		},
		DialContext: d.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: callTime,
		MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
	}
	return &contact{base: "https://" + server, token: token, key: key, http: &http.Client{Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

func checkPin(s tls.ConnectionState, pin Fingerprint) error {
	if len(s.PeerCertificates) != 1 {
		return errPin
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || sha256.Sum256(key) != pin {
		return errPin
	}
	return nil
}

func (c *contact) close() { c.http.CloseIdleConnections() }

// report tells the server how things are.
func (c *contact) report(ctx context.Context, r *api.RelayReport) (rep api.RelayReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	body, err := json.Marshal(r)
	if err != nil {
		return rep, fmt.Errorf("encode report: %w", err)
	}
	raw, err := c.call(ctx, http.MethodPost, api.RouteRelayReport, body, maxAnswer)
	if err != nil {
		return rep, fmt.Errorf("report to the server: %w", err)
	}
	if err := json.Unmarshal(raw, &rep); err != nil {
		return rep, fmt.Errorf("report to the server: its answer: %w", err)
	}
	return rep, nil
}

// file fetches one file of an image version; nil when there is none of that
// name.
func (c *contact) file(ctx context.Context, w api.RelayWant, name string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fileTime)
	defer cancel()
	raw, err := c.call(ctx, http.MethodGet, api.RouteRelayImage+w.Name+"/"+w.Version+"/"+name, nil, limit)
	var p *api.Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s of image %s/%s: %w", name, w.Name, w.Version, err)
	}
	return raw, nil
}

// call sends one request and returns an answer of at most limit bytes. A status
// of 400 and more comes back as *api.Problem.
func (c *contact) call(ctx context.Context, method, route string, body []byte, limit int64) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+route, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	if resp.StatusCode != http.StatusOK {
		p := &api.Problem{}
		if json.Unmarshal(raw, p) != nil || p.Code == "" {
			p = &api.Problem{Title: http.StatusText(resp.StatusCode), Code: api.CodeInternal}
		}
		p.Status = resp.StatusCode
		return nil, p
	}
	return raw, nil
}
