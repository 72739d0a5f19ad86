package peercert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

var (
	secret = bytes.Repeat([]byte{7}, 32)
	image  = [20]byte{1, 2, 3}
	host   = ID{Host: "a01", Job: 7, Boot: "00112233445566778899aabbccddeeff"}
)

func authority(t testing.TB, secret []byte, ih [20]byte, scope string) *Authority {
	t.Helper()
	a, err := NewAuthority(secret, ih, scope)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pass(t testing.TB, a *Authority, id ID) *Pass {
	t.Helper()
	p, err := a.NewPass(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSameAfterRestart: nothing is stored, so everything must be derived again
// to the last bit, and anything else must be foreign.
func TestSameAfterRestart(t *testing.T) {
	a, again := authority(t, secret, image, "s"), authority(t, secret, image, "s")
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	one, err := a.Issue(pub, host)
	if err != nil {
		t.Fatal(err)
	}
	two, err := again.Issue(pub, host)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Cert(), again.Cert()) || !bytes.Equal(one, two) {
		t.Error("the same authority made other bytes")
	}
	if n := len(one) + len(a.Cert()); n > 1000 {
		t.Errorf("both certificates have %d bytes; an order should stay small", n)
	}
	p, err := NewPass(again.Cert(), one, key)
	if err != nil {
		t.Fatal(err)
	}
	if p.ID() != host || p.InfoHash() != image {
		t.Errorf("pass of %+v for %x; want %+v for %x", p.ID(), p.InfoHash(), host, image)
	}
	for name, other := range map[string]*Authority{
		"other server": authority(t, bytes.Repeat([]byte{8}, 32), image, "s"),
		"other image":  authority(t, secret, [20]byte{9}, "s"),
		"other scope":  authority(t, secret, image, "t"),
	} {
		if _, err := NewPass(other.Cert(), one, key); err == nil {
			t.Errorf("%s: its certificate passes for ours", name)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	a := authority(t, secret, image, "s")
	pub := ed25519.NewKeyFromSeed(secret).Public().(ed25519.PublicKey)
	for name, f := range map[string]func() error{
		"no key":     func() error { _, err := a.Issue(nil, host); return err },
		"no name":    func() error { _, err := a.Issue(pub, ID{Job: 1}); return err },
		"long name":  func() error { _, err := a.Issue(pub, ID{Host: string(make([]byte, 65))}); return err },
		"short key":  func() error { _, err := NewAuthority(secret[:31], image, "s"); return err },
		"long scope": func() error { _, err := NewAuthority(secret, image, string(make([]byte, 65))); return err },
	} {
		if f() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNewPassRefuses(t *testing.T) {
	a := authority(t, secret, image, "s")
	key := ed25519.NewKeyFromSeed(secret)
	good, err := a.Issue(key.Public().(ed25519.PublicKey), host)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewPass(a.Cert(), good, key); err != nil {
		t.Fatalf("a good pass: %v", err)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	for name, err := range map[string]error{
		"rubbish authority":   second(NewPass([]byte("x"), good, key)),
		"rubbish certificate": second(NewPass(a.Cert(), []byte("x"), key)),
		"nothing":             second(NewPass(nil, nil, nil)),
		"another key":         second(NewPass(a.Cert(), good, other)),
		"no key":              second(NewPass(a.Cert(), good, nil)),
		"leaf as authority":   second(NewPass(good, good, key)),
		"authority as leaf":   second(NewPass(a.Cert(), a.Cert(), a.key)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func second(_ *Pass, err error) error { return err }

// forge makes a leaf with the words of host, signed by key under parent.
func forge(t *testing.T, parent *x509.Certificate, key crypto.Signer, leaf crypto.PublicKey, mod func(*x509.Certificate)) []byte {
	t.Helper()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: always, NotAfter: never,
		Subject: pkix.Name{CommonName: host.Host, SerialNumber: host.Boot, OrganizationalUnit: []string{"host 7"}}}
	if mod != nil {
		mod(tpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, leaf, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// pair is a TCP connection on loopback: net.Pipe has no buffer, in which an
// alert could wait for a client that is still writing.
func pair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{server, client} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

// shake connects two configurations and returns both results.
func shake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := pair(t)
	done := make(chan error, 1)
	go func() {
		tc := tls.Server(a, server)
		err := tc.HandshakeContext(t.Context())
		if err == nil {
			_, err = tc.Write([]byte("x"))
		}
		done <- errors.Join(err, a.Close())
	}()
	tc := tls.Client(b, client)
	err := tc.HandshakeContext(t.Context())
	if err == nil { // in TLS 1.3 the client hears with the first byte what the server thinks of it
		_, err = tc.Read(make([]byte, 1))
	}
	return <-done, errors.Join(err, b.Close())
}

// TestHandshakes: who gets through, and who does not.
func TestHandshakes(t *testing.T) {
	a := authority(t, secret, image, "s")
	foreign := authority(t, bytes.Repeat([]byte{8}, 32), image, "s")
	ended := authority(t, secret, image, "last night")
	seed := pass(t, a, ID{Host: "server", Seed: true})
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// with is the client of a host that shows other certificates.
	with := func(key crypto.Signer, ders ...[]byte) *tls.Config {
		c := pass(t, a, host).Client("server", true)
		c.Certificates = []tls.Certificate{{Certificate: ders, PrivateKey: key}}
		return c
	}
	mod := func(f func(*tls.Config)) *tls.Config {
		c := pass(t, a, host).Client("server", true)
		f(c)
		return c
	}
	good := forge(t, a.cert, a.key, pub, nil)
	for name, tt := range map[string]struct {
		server, client *tls.Config
		ok             bool
	}{
		"good":               {client: pass(t, a, host).Client("server", true), ok: true},
		"good, forged right": {client: with(key, good), ok: true},
		"good, expired dates": {client: with(key, forge(t, a.cert, a.key, pub, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Unix(5, 0), time.Unix(6, 0)
		})), ok: true},
		"foreign authority":       {client: pass(t, foreign, host).Client("server", true)},
		"foreign, only client":    {client: with(key, forge(t, foreign.cert, foreign.key, pub, nil))},
		"certificate of last job": {client: with(key, forge(t, ended.cert, ended.key, pub, nil))},
		"no certificate":          {client: mod(func(c *tls.Config) { c.Certificates = nil })},
		"self-signed":             {client: with(key, forge(t, &x509.Certificate{Subject: a.cert.Subject}, key, pub, nil))},
		"signed by a host":        {client: with(ec, forge(t, mustParse(t, good), key, ec.Public(), nil))},
		"chain of two":            {client: with(key, good, a.Cert())},
		"not ed25519":             {client: with(ec, forge(t, a.cert, a.key, ec.Public(), nil))},
		"no role":                 {client: with(key, forge(t, a.cert, a.key, pub, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil }))},
		"strange role":            {client: with(key, forge(t, a.cert, a.key, pub, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"root 7"} }))},
		"strange job":             {client: with(key, forge(t, a.cert, a.key, pub, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"host -1"} }))},
		"no name":                 {client: with(key, forge(t, a.cert, a.key, pub, func(c *x509.Certificate) { c.Subject.CommonName = "" }))},
		"another authority below": {client: with(key, forge(t, a.cert, a.key, pub, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }))},
		"TLS 1.2":                 {client: mod(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })},
		"no protocol name":        {client: mod(func(c *tls.Config) { c.NextProtos = nil })},
		"protocol of the API":     {client: mod(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} })},
		"refused by the node":     {server: seed.Server(func(ID) error { return errors.New("no member") }), client: pass(t, a, host).Client("server", true)},
		"another seed":            {client: pass(t, a, host).Client("campus", true)},
		"host as seed":            {server: pass(t, a, ID{Host: "server", Job: 7}).Server(nil), client: pass(t, a, host).Client("server", true)},
		"host as another":         {server: pass(t, a, ID{Host: "a02", Job: 7}).Server(nil), client: pass(t, a, host).Client("a03", false)},
		"host to host":            {server: pass(t, a, ID{Host: "a02", Job: 8}).Server(nil), client: pass(t, a, host).Client("a02", false), ok: true},
		"foreign server":          {server: pass(t, foreign, ID{Host: "server", Seed: true}).Server(nil), client: pass(t, a, host).Client("server", true)},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.server == nil {
				tt.server = seed.Server(nil)
			}
			serr, cerr := shake(t, tt.server, tt.client)
			if tt.ok && (serr != nil || cerr != nil) {
				t.Errorf("server: %v; client: %v; want both content", serr, cerr)
			}
			if !tt.ok && (serr == nil || cerr == nil) {
				t.Errorf("server: %v; client: %v; want neither to get through", serr, cerr)
			}
		})
	}
}

func mustParse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNoTickets: every connection shows its certificate; none is resumed.
func TestNoTickets(t *testing.T) {
	a := authority(t, secret, image, "s")
	seen := 0
	server := pass(t, a, ID{Host: "server", Seed: true}).Server(func(ID) error { seen++; return nil })
	client := pass(t, a, host).Client("server", true)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 3 {
		if s, c := shake(t, server, client); s != nil || c != nil {
			t.Fatal(s, c)
		}
	}
	if _, ok := client.ClientSessionCache.Get(client.ServerName); ok || seen != 3 {
		t.Errorf("a session was kept: %v; certificates seen: %d of 3", ok, seen)
	}
}

func TestServerName(t *testing.T) {
	if ih, ok := InfoHashOf(ServerName(image)); !ok || ih != image {
		t.Errorf("InfoHashOf(ServerName) = %x, %v", ih, ok)
	}
	for _, s := range []string{"", "labswarm", ServerName(image)[:38], ServerName(image) + "00", "zz" + ServerName(image)[2:]} {
		if _, ok := InfoHashOf(s); ok {
			t.Errorf("%q names a swarm", s)
		}
	}
}

// BenchmarkHandshake is both sides of one.
func BenchmarkHandshake(b *testing.B) {
	a := authority(b, secret, image, "s")
	server, client := pass(b, a, ID{Host: "server", Seed: true}).Server(nil), pass(b, a, host).Client("server", true)
	for b.Loop() {
		x, y := pair(b)
		done := make(chan error, 1)
		go func() { done <- tls.Server(x, server).HandshakeContext(b.Context()) }()
		if err := errors.Join(tls.Client(y, client).HandshakeContext(b.Context()), <-done, x.Close(), y.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
