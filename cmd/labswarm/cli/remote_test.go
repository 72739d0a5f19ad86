package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/server/access"
	"labswarm/server/httpapi"
	"labswarm/server/store"
)

// elsewhere is a server with books on the socket in dir and on TLS.
type elsewhere struct {
	desk
	*access.Book
	dir, addr, print string
}

func (e *elsewhere) AddToken(ctx context.Context, req *api.TokenAdd) (api.TokenMade, error) {
	made, err := e.Book.AddToken(ctx, req)
	made.Listen, made.Fingerprint = e.addr, e.print
	return made, err
}
func (e *elsewhere) Tokens(ctx context.Context) ([]api.Token, error) { return e.Book.Tokens(ctx) }
func (e *elsewhere) RemoveToken(ctx context.Context, id string) error {
	return e.Book.RemoveToken(ctx, id)
}
func (e *elsewhere) Audit(ctx context.Context, after uint64, n int) (api.AuditPage, error) {
	return e.Book.Audit(ctx, after, n)
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// openElsewhere serves on addr, "" = any; shut ends it.
func openElsewhere(t *testing.T, s store.Store, addr string, cert tls.Certificate) (e *elsewhere, shut func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	book, err := access.Open(t.Context(), s, log)
	if err != nil {
		t.Fatal(err)
	}
	e = &elsewhere{Book: book, dir: t.TempDir(), print: client.Fingerprint(cert.Certificate[0])}
	e.ring, e.ticked = make(chan struct{}), make(chan struct{})
	a := httpapi.NewAdmin(e, log)
	a.Use(book, access.Peers{})
	sock, err := net.Listen("unix", filepath.Join(e.dir, "labswarm.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	e.addr = tcp.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- a.Serve(ctx, sock) }()
	go func() { ended <- a.ServeTLS(ctx, tcp, cert) }()
	done := false
	shut = func() {
		if done {
			return
		}
		done = true
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("server: %v", err)
			}
		}
	}
	t.Cleanup(shut)
	return e, shut
}

// TestOtherMachine walks through the first days of a token: made, pinned at the
// first use, refused with another key, revoked.
func TestOtherMachine(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	s, cert := store.NewMem(), selfSigned(t)
	e, shut := openElsewhere(t, s, "", cert)
	code, out, errOut := run(t.Context(), t, e.dir, "token", "add", "night watch", "--role", "operator", "--rooms", "A101")
	secret := strings.TrimSpace(out)
	if code != 0 || !strings.HasPrefix(secret, "lsw_") || !strings.Contains(errOut, e.print) || !strings.Contains(errOut, "shown this once") {
		t.Fatalf("token add = %d %q %q", code, out, errOut)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	away := func(want int, words string, args ...string) string {
		t.Helper()
		code, out, errOut := run(t.Context(), t, "/nonexistent", append([]string{"--server", "https://" + e.addr, "--token-file", file}, args...)...)
		if code != want || !strings.Contains(out+errOut, words) {
			t.Errorf("%v = %d\n%s%s\nwant %d and %q", args, code, out, errOut, want, words)
		}
		return out
	}
	// First use, in a pipe: nothing goes out without the fingerprint.
	away(ExitUsage, "add --fingerprint "+e.print, "status")
	away(ExitNotAllowed, "ANOTHER KEY", "--fingerprint", "SHA256:wrong", "status")
	away(ExitOK, "chmod 600", "--fingerprint", e.print, "status")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	away(ExitOK, "lab1", "status") // known from now on
	away(ExitNotAllowed, "known_servers", "--fingerprint", "SHA256:wrong", "status")
	// What it may, and what it may not.
	away(ExitOK, "", "room", "ls")
	away(ExitNotAllowed, "not_allowed", "host", "add", "a1", "--room", "A101", "--mac", "52:54:00:00:00:01")
	away(ExitNotAllowed, "takes admin", "token", "ls")
	away(ExitOK, `"seq"`, "--json", "events", "--since", "0", "--follow=false")
	away(ExitUsage, "works on the server only", "image", "ls")
	away(ExitUsage, "works on the server only", "image", "import", "x", file)
	away(ExitUsage, "works on the server only", "serve")
	away(ExitOK, "labswarm", "version")
	// The server gets another key.
	shut()
	e, _ = openElsewhere(t, s, e.addr, selfSigned(t))
	away(ExitNotAllowed, "ANOTHER KEY", "status")
	known := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "labswarm", "known_servers")
	if err := os.Remove(known); err != nil {
		t.Fatal(err)
	}
	away(ExitOK, "lab1", "--fingerprint", e.print, "status")
	// The end of the token.
	if code, out, _ := run(t.Context(), t, e.dir, "--json", "token", "ls"); code != 0 || !strings.Contains(out, `"used"`) || strings.Contains(out, secret[4:]) {
		t.Errorf("token ls = %d %s", code, out)
	}
	if code, out, _ := run(t.Context(), t, e.dir, "token", "rm", "t1"); code != 0 || !strings.Contains(out, "void") {
		t.Errorf("token rm = %d %s", code, out)
	}
	away(ExitNotAllowed, "bad_token", "status")
	if code, _, errOut := run(t.Context(), t, e.dir, "token", "rm", "t1"); code != ExitFailed || !strings.Contains(errOut, "t1") {
		t.Errorf("token rm again = %d %s", code, errOut)
	}
}

// TestAuditCommands: what was done is shown, exported and verified; a changed
// export is not.
func TestAuditCommands(t *testing.T) {
	e, _ := openElsewhere(t, store.NewMem(), "", selfSigned(t))
	if code, _, errOut := run(t.Context(), t, e.dir, "audit", "ls"); code != 0 || !strings.Contains(errOut, "empty") {
		t.Errorf("audit ls of an empty log = %d %q", code, errOut)
	}
	for _, name := range []string{"one", "two", "three"} {
		if code, _, errOut := run(t.Context(), t, e.dir, "token", "add", name, "--role", "viewer"); code != 0 {
			t.Fatal(errOut)
		}
	}
	run(t.Context(), t, e.dir, "token", "rm", "t9")
	code, out, _ := run(t.Context(), t, e.dir, "audit", "ls", "-n", "2")
	if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "not_found") || !strings.Contains(out, "uid ") {
		t.Errorf("audit ls -n 2 = %d\n%s", code, out)
	}
	if code, out, errOut := run(t.Context(), t, e.dir, "audit", "verify"); code != 0 || !strings.HasPrefix(out, "4 records, the chain is whole") {
		t.Errorf("audit verify = %d %s%s", code, out, errOut)
	}
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	if code, _, errOut := run(t.Context(), t, e.dir, "audit", "export", file); code != 0 {
		t.Fatalf("audit export = %d %s", code, errOut)
	}
	if code, _, _ := run(t.Context(), t, e.dir, "audit", "export", file); code == 0 {
		t.Error("audit export overwrote a file")
	}
	var head struct {
		Records int           `json:"records"`
		Head    api.AuditLink `json:"head"`
	}
	code, out, errOut := run(t.Context(), t, e.dir, "--json", "audit", "verify", file)
	if err := json.Unmarshal([]byte(out), &head); code != 0 || err != nil || head.Records != 4 || head.Head.Seq != 4 {
		t.Errorf("audit verify FILE = %d %s%s, %v", code, out, errOut, err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(raw), "\n"), "\n")
	for what, bad := range map[string]string{
		"changed":           strings.Replace(string(raw), "uid ", "uid 7", 1),
		"one taken out":     lines[0] + lines[1] + lines[3] + lines[4],
		"the end taken out": strings.Join(lines[:4], ""),
		"cut":               string(raw[:len(raw)-20]),
		"no export":         "{}\n",
	} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := run(t.Context(), t, e.dir, "audit", "verify", file); code != ExitFailed {
			t.Errorf("%s: audit verify = %d %s", what, code, out)
		}
	}
}

func TestServerAddr(t *testing.T) {
	for text, want := range map[string]string{
		"https://lab1:7443": "lab1:7443", "https://lab1:7443/": "lab1:7443", "lab1:7443": "lab1:7443", "https://[fe80::1]:7443": "[fe80::1]:7443",
		"http://lab1:7443": "", "https://lab1": "", "lab1": "", "https://u:p@lab1:1": "", "https://lab1:1/x": "", "": "", ":7443": "",
	} {
		if got, err := serverAddr(text); got != want || (err == nil) != (want != "") {
			t.Errorf("serverAddr(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}
