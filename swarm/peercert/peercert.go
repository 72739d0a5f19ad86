// Package peercert is the roster of a swarm in certificates: an authority that
// the server derives from its own key, the certificates it issues over the keys
// of hosts and seeds, and the TLS settings with which two peers prove to each
// other that they belong to the same swarm.
//
// Dates prove nothing here: PCs with an empty battery live in 1970. What ends a
// certificate is its scope: a new run of a swarm has a new authority. It opens
// no connection. Called by server/daemon (issues), initramfs-agent/deploy and
// server/seeder (hold a Pass), and swarm/peer (shakes hands).
package peercert

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// ID is what a certificate says about its owner.
type ID struct {
	Host string // name in the roster; for seeds the name the planner knows them by, "server" for the server's
	Job  uint64 // the job the host is in, 0 for a seed
	Boot string // boot id of the agent: after a reboot the host needs a new certificate
	Seed bool   // a seed of the swarm, no host
}

// String is the owner in words.
func (id ID) String() string {
	if id.Seed {
		return "seed " + id.Host
	}
	return fmt.Sprintf("host %s of job %d", id.Host, id.Job)
}

// Words of the certificate's subject.
const (
	caName   = "labswarm swarm"
	roleHost = "host"
	roleSeed = "seed"
)

// maxName is the longest host name, scope or boot id in bytes (RFC 5280 allows
// 64 in a common name; Go checks neither).
const maxName = 64

// Authority issues the certificates of one swarm.
type Authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

// NewAuthority derives the authority of one run of a swarm from the server's
// secret key (RFC 5869), so that a restarted server has the same one and keeps
// no further secret. scope names the run: certificates of another scope are
// foreign, also on the same info-hash.
func NewAuthority(secret []byte, infoHash [20]byte, scope string) (*Authority, error) {
	if len(secret) < 32 || len(scope) > maxName {
		return nil, fmt.Errorf("make swarm authority: secret of %d bytes, scope of %d", len(secret), len(scope))
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, "labswarm swarm authority v1\x00"+string(infoHash[:])+scope, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive swarm authority: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	tpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: caName, SerialNumber: hex.EncodeToString(infoHash[:]), OrganizationalUnit: []string{scope}},
		NotBefore:             always,
		NotAfter:              never,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make swarm authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make swarm authority: %w", err)
	}
	return &Authority{key: key, cert: cert}, nil
}

// Dates that fit every clock; nobody looks at them.
var (
	always = time.Unix(0, 0).UTC()
	never  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) // RFC 5280 4.1.2.5: no end
)

// Cert is the authority's certificate, DER. The same authority gives the same
// bytes.
func (a *Authority) Cert() []byte { return a.cert.Raw }

// Issue makes a certificate over a key, DER. The same key and ID give the same
// bytes.
func (a *Authority) Issue(key ed25519.PublicKey, id ID) ([]byte, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("issue certificate for %v: not an ed25519 key", id)
	}
	if id.Host == "" || len(id.Host) > maxName || len(id.Boot) > maxName {
		return nil, fmt.Errorf("issue certificate for %q: a name of 1 to %d bytes is needed", id.Host, maxName)
	}
	role := roleHost
	if id.Seed {
		role = roleSeed
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s\x00%s", key, id.Host, id.Job, id.Boot, role))
	sum[0] &= 0x7f // a positive number
	tpl := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(sum[:16]),
		Subject: pkix.Name{CommonName: id.Host, SerialNumber: id.Boot,
			OrganizationalUnit: []string{role + " " + strconv.FormatUint(id.Job, 10)}},
		NotBefore:   always,
		NotAfter:    never,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %v: %w", id, err)
	}
	return der, nil
}

// NewPass issues a certificate over a new key: for a seed in the same process.
func (a *Authority) NewPass(id ID) (*Pass, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of %v: %w", id, err)
	}
	der, err := a.Issue(pub, id)
	if err != nil {
		return nil, err
	}
	return NewPass(a.Cert(), der, key)
}

// read takes the words out of a certificate whose signature was checked.
func read(c *x509.Certificate) (ID, error) {
	s := c.Subject
	if s.CommonName == "" || len(s.OrganizationalUnit) != 1 || c.IsCA {
		return ID{}, errors.New("it is no peer's certificate")
	}
	role, number, _ := strings.Cut(s.OrganizationalUnit[0], " ")
	job, err := strconv.ParseUint(number, 10, 64)
	if err != nil || role != roleHost && role != roleSeed {
		return ID{}, fmt.Errorf("its role is %q", s.OrganizationalUnit[0])
	}
	return ID{Host: s.CommonName, Job: job, Boot: s.SerialNumber, Seed: role == roleSeed}, nil
}

// Pass is what one peer needs in order to take part in a swarm: its own
// certificate and key, and the authority's certificate to judge others by. It
// is safe for concurrent use.
type Pass struct {
	ca       *x509.Certificate
	infoHash [20]byte
	id       ID
	der      []byte
	key      crypto.Signer
}

// NewPass puts a pass together from DER certificates and the key that belongs
// to the own one.
func NewPass(ca, cert []byte, key crypto.Signer) (*Pass, error) {
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, fmt.Errorf("read the swarm's authority: %w", err)
	}
	p := &Pass{ca: root, der: cert, key: key}
	raw, err := hex.DecodeString(root.Subject.SerialNumber)
	if err != nil || len(raw) != len(p.infoHash) || !root.IsCA || root.Subject.CommonName != caName {
		return nil, errors.New("read the swarm's authority: it is none")
	}
	copy(p.infoHash[:], raw)
	own, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("read the own swarm certificate: %w", err)
	}
	pub, ok := own.PublicKey.(ed25519.PublicKey)
	if !ok || key == nil || !pub.Equal(key.Public()) {
		return nil, errors.New("read the own swarm certificate: it is not of this key")
	}
	if p.id, err = p.check(own); err != nil {
		return nil, fmt.Errorf("read the own swarm certificate: %w", err)
	}
	return p, nil
}

// ID is the owner of the pass.
func (p *Pass) ID() ID { return p.id }

// InfoHash is the swarm the pass is for.
func (p *Pass) InfoHash() [20]byte { return p.infoHash }

// check judges a certificate: of this authority, over an ed25519 key. Dates are
// not looked at.
func (p *Pass) check(c *x509.Certificate) (ID, error) {
	if err := c.CheckSignatureFrom(p.ca); err != nil {
		return ID{}, fmt.Errorf("the certificate of %q is not of this swarm: %w", strings.ToValidUTF8(c.Subject.CommonName, "?"), err)
	}
	if _, ok := c.PublicKey.(ed25519.PublicKey); !ok {
		return ID{}, errors.New("the certificate is not over an ed25519 key")
	}
	return read(c)
}
