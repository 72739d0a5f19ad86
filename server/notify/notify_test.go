package notify

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/config"
	"labswarm/server/event"
	"labswarm/server/store"
)

// bench is a notifier on a real store, with a secret in a file.
type bench struct {
	t      *testing.T
	db     store.Store
	bell   event.Bell
	secret string
	set    config.Notify
	delays []time.Duration
	roots  *x509.CertPool
	stop   context.CancelFunc
	done   chan error
	n      *Notifier
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, secret: filepath.Join(t.TempDir(), "secret"), roots: x509.NewCertPool()}
	if err := os.WriteFile(b.secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, _, err := store.Open(filepath.Join(t.TempDir(), "s.db"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.db = db
	// As after a first run: what happens from now on is told.
	if err := db.Update(t.Context(), func(tx store.Tx) error { return tx.Put(keyCursor, []byte("0")) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.end()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) start() {
	b.n = New(Options{Store: b.db, Bell: &b.bell, Settings: b.set, Server: "lab1", Log: slog.New(slog.DiscardHandler), Delays: b.delays,
		Details: func(_ context.Context, e api.Event) string { return "# Job: PARTIAL\n.\nlone dot above" }, sender: sender{b.roots}, look: 10 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background()) // ended by end, also when the test's own has ended
	b.stop, b.done = cancel, make(chan error, 1)
	go func() { b.done <- b.n.Run(ctx) }()
}

func (b *bench) end() {
	if b.stop == nil {
		return
	}
	b.stop()
	b.stop = nil
	if err := <-b.done; err != nil {
		b.t.Error(err)
	}
}

func (b *bench) happen(e api.Event) {
	b.t.Helper()
	e.Time = time.Now().UTC()
	if err := b.db.Update(b.t.Context(), func(tx store.Tx) error { _, err := event.Append(tx, e); return err }); err != nil {
		b.t.Fatal(err)
	}
	b.bell.Ring()
}

func (b *bench) pending() int {
	b.t.Helper()
	n, err := b.n.Pending(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// hook is a webhook's receiver.
type hook struct {
	mu     sync.Mutex
	bodies []Body
	answer func(n int) int
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Header.Get(HeaderSig) != Sign([]byte("hush"), r.Header.Get(HeaderTime), raw) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var b Body
	if err := json.Unmarshal(raw, &b); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.bodies = append(h.bodies, b)
	w.WriteHeader(h.answer(len(h.bodies)))
}

func (h *hook) got() []Body {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Body(nil), h.bodies...)
}

func TestWebhook(t *testing.T) {
	b := newBench(t)
	h := &hook{answer: func(n int) int {
		if n < 3 {
			return http.StatusBadGateway
		}
		return http.StatusNoContent
	}}
	srv := httptest.NewServer(h)
	defer srv.Close()
	b.set = config.Notify{Webhook: srv.URL + "/token-in-path", WebhookCredential: b.secret}
	b.delays = []time.Duration{0, 0, 0, 0, 0}
	b.start()
	b.happen(api.Event{Code: "slot_writing", Job: 2, Text: "nobody's business"})
	b.happen(api.Event{Code: "job_ended", Job: 2, Room: "A101", Text: "job ended: partial"})
	b.until("third try", func() bool { return len(h.got()) >= 3 && b.pending() == 0 })
	for _, m := range h.got() {
		if m.Event.Job == 2 && (m.ID != h.got()[len(h.got())-1].ID || m.Event.Code != "job_ended" || m.Server != "lab1" || !strings.Contains(m.Text, "PARTIAL") || m.Title != "labswarm lab1: job 2: job ended: partial") {
			t.Errorf("message: %+v", m)
		}
	}
}

// TestFirstStart: what happened before there was a notifier is told to nobody.
func TestFirstStart(t *testing.T) {
	b := newBench(t)
	if err := b.db.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(keyCursor) }); err != nil {
		t.Fatal(err)
	}
	b.n = New(Options{Store: b.db, Bell: &b.bell, Settings: config.Notify{Webhook: "http://127.0.0.1:1"}, Log: slog.New(slog.DiscardHandler)})
	b.happen(api.Event{Code: "job_ended", Job: 1})
	for _, want := range []int{0, 1} {
		if _, err := b.n.intake(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.pending(); got != want {
			t.Errorf("%d messages; want %d", got, want)
		}
		b.happen(api.Event{Code: "job_ended", Job: 2})
	}
}

// TestGivenUp: after the last try an event says so, and the same fault is not told all day.
func TestGivenUp(t *testing.T) {
	b := newBench(t)
	h := &hook{answer: func(int) int { return http.StatusInternalServerError }}
	srv := httptest.NewServer(h)
	defer srv.Close()
	b.set = config.Notify{Webhook: srv.URL, WebhookCredential: b.secret}
	b.delays = []time.Duration{0, 0, 0}
	b.start()
	b.happen(api.Event{Code: "disk_low", Text: "full"})
	b.happen(api.Event{Code: "disk_low", Text: "full"})
	var last api.Event
	b.until("the alarm", func() bool {
		var list []api.Event
		if err := b.db.View(t.Context(), func(tx store.Tx) (err error) { list, err = event.Since(tx, 0, 100); return err }); err != nil {
			t.Fatal(err)
		}
		last = list[len(list)-1]
		return last.Code == CodeFailed
	})
	if !strings.Contains(last.Text, "3 times") || !strings.Contains(last.Text, "500") || last.Level != "error" || b.pending() != 0 || len(h.got()) != 3 {
		t.Errorf("after %d tries: %+v, %d pending", len(h.got()), last, b.pending())
	}
}

// TestSurvivesRestart: what waits is delivered by the next process, and only once.
func TestSurvivesRestart(t *testing.T) {
	b := newBench(t)
	h := &hook{answer: func(int) int { return http.StatusOK }}
	srv := httptest.NewUnstartedServer(h)
	defer srv.Close()
	b.set = config.Notify{Webhook: "http://" + srv.Listener.Addr().String(), WebhookCredential: "not-given-by-systemd"}
	b.delays = []time.Duration{0, time.Millisecond, time.Hour}
	b.start()
	b.happen(api.Event{Code: "slot_held", Job: 3, Host: "a1", Text: "HELD: look"})
	b.until("it waits", func() bool { return b.pending() == 1 })
	b.end()
	srv.Start()
	// The hour of the third try is up: as if the process had been away so long.
	if err := b.db.Update(t.Context(), func(tx store.Tx) error {
		for _, raw := range tx.Scan(prefix, "", 1) {
			var m Message
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			m.Next = time.Now()
			return put(tx, m)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.set.WebhookCredential = b.secret
	b.start()
	b.until("delivered", func() bool { return b.pending() == 0 && len(h.got()) == 1 })
	b.end()
	b.start()
	b.happen(api.Event{Code: "job_ended", Job: 3, Text: "job ended: failed"})
	b.until("the next one", func() bool { return len(h.got()) == 2 && b.pending() == 0 })
	if got := h.got(); got[0].Event.Code != "slot_held" || got[1].Event.Code != "job_ended" {
		t.Errorf("got %+v", got)
	}
}

// TestSlowReceiverIsCut: one that never answers does not hold the end of the server.
func TestSlowReceiverIsCut(t *testing.T) {
	b := newBench(t)
	in, out := make(chan struct{}, 1), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		in <- struct{}{}
		<-out
	}))
	defer srv.Close()
	defer close(out)
	b.set = config.Notify{Webhook: srv.URL, WebhookCredential: b.secret}
	b.start()
	b.happen(api.Event{Code: "disk_low", Text: "x"})
	<-in
	b.end()
	if b.pending() != 1 {
		t.Error("a message whose answer did not come is gone")
	}
}

// post is a small SMTP server with STARTTLS and PLAIN; it keeps what it was given.
type post struct {
	ln    net.Listener
	cert  tls.Certificate
	plain bool // no STARTTLS

	mu    sync.Mutex
	mails []string
	auths []string
}

func newPost(t *testing.T, roots *x509.CertPool) *post {
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS() // for its certificate, of 127.0.0.1
	roots.AddCert(srv.Certificate())
	cert := srv.TLS.Certificates[0]
	srv.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &post{ln: ln, cert: cert}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go func() { defer wg.Done(); p.serve(c) }()
		}
	}()
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return p
}

func (p *post) serve(c net.Conn) {
	defer c.Close()
	r, secure := bufio.NewReader(c), false
	say := func(s string) { fmt.Fprintf(c, "%s\r\n", s) }
	say("220 post")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(strings.Fields(line + " x")[0]); {
		case verb == "EHLO" && !secure && !p.plain:
			say("250-post\r\n250 STARTTLS")
		case verb == "EHLO":
			say("250-post\r\n250 AUTH PLAIN")
		case verb == "STARTTLS":
			say("220 go")
			tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{p.cert}})
			c, r, secure = tc, bufio.NewReader(tc), true
		case verb == "AUTH":
			raw, _ := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
			p.mu.Lock()
			p.auths = append(p.auths, string(raw))
			p.mu.Unlock()
			say("235 ok")
		case verb == "DATA":
			say("354 go")
			var b strings.Builder
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				b.WriteString(l)
			}
			p.mu.Lock()
			p.mails = append(p.mails, b.String())
			p.mu.Unlock()
			say("250 taken")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (p *post) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.mails...)
}

func TestMail(t *testing.T) {
	b := newBench(t)
	p := newPost(t, b.roots)
	b.set = config.Notify{MailHost: p.ln.Addr().String(), MailTo: []string{"lab@example.org", "boss@example.org"}, MailFrom: "labswarm@example.org",
		MailUser: "u", MailPasswordCredential: b.secret}
	b.start()
	b.happen(api.Event{Code: "slot_held", Job: 7, Host: "evil", Text: "HELD: ü\r\nBcc: all@example.org"})
	b.until("the mail", func() bool { return len(p.got()) == 1 && b.pending() == 0 })
	m, err := mail.ReadMessage(strings.NewReader(p.got()[0]))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, m.Body))
	if err != nil {
		t.Fatal(err)
	}
	subj := m.Header.Get("Subject")
	if m.Header.Get("Bcc") != "" || m.Header.Get("To") != "lab@example.org, boss@example.org" || !strings.HasPrefix(subj, "=?utf-8?q?labswarm_lab1") ||
		!strings.Contains(string(body), "HELD: ü") || !strings.Contains(string(body), "\n.\nlone dot") {
		t.Errorf("mail:\n%s\n%s", p.got()[0], body)
	}
	if len(p.auths) != 1 || p.auths[0] != "\x00u\x00hush" {
		t.Errorf("logged in as %q", p.auths)
	}
}

// TestMailNeedsTLS: neither password nor report go over an open line, and an unknown certificate ends the try.
func TestMailNeedsTLS(t *testing.T) {
	b := newBench(t)
	set := config.Notify{MailTo: []string{"lab@example.org"}, MailUser: "u", MailPasswordCredential: b.secret}
	m := Message{Event: api.Event{Code: "disk_low"}}
	p := newPost(t, b.roots)
	p.plain = true
	set.MailHost = p.ln.Addr().String()
	if err := (sender{b.roots}).mail(t.Context(), set, "s", m, ""); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("without STARTTLS: %v", err)
	}
	q := newPost(t, x509.NewCertPool())
	set.MailHost = q.ln.Addr().String()
	if err := (sender{x509.NewCertPool()}).mail(t.Context(), set, "s", m, ""); err == nil {
		t.Error("an unknown certificate was accepted")
	}
	if len(p.got())+len(q.got())+len(p.auths)+len(q.auths) != 0 {
		t.Error("something was sent in the open")
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(filepath.Join(dir, "smtp"), []byte(" word \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := secret("smtp"); err != nil || string(got) != "word" {
		t.Errorf("secret = %q, %v", got, err)
	}
	for _, bad := range []string{"", "../smtp", "none", "/no/such/file"} {
		if _, err := secret(bad); err == nil {
			t.Errorf("secret(%q) accepted", bad)
		}
	}
}
