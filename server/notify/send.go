package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/smtp"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/version"
	"labswarm/server/config"
)

const (
	webhookLimit = 10 * time.Second
	mailLimit    = 30 * time.Second
	maxSecret    = 4 << 10 // bytes
)

// Headers of a webhook. The signature is hex HMAC-SHA256 with the secret over TIMESTAMP + "." + BODY; the receiver refuses a timestamp
// (Unix seconds) that is more than some minutes old.
const (
	HeaderTime = "X-Labswarm-Timestamp"
	HeaderSig  = "X-Labswarm-Signature" // "sha256=" + hex
)

// Body is what a webhook carries.
type Body struct {
	Server string    `json:"server"`
	ID     uint64    `json:"id"` // of the message: the same again after a lost answer
	Title  string    `json:"title"`
	Event  api.Event `json:"event"`
	Text   string    `json:"text,omitempty"` // Markdown: of an ended job its report
}

// Sign makes the signature of a webhook.
func Sign(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// sender is how messages leave. Its zero value trusts the machine's certificates.
type sender struct{ roots *x509.CertPool }

func (s sender) tls(host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}
}

// secret reads a credential: a name of systemd's LoadCredential=, or an absolute path. It is read for each message, so that a new one
// needs no restart, and stands in no error.
func secret(name string) ([]byte, error) {
	path := name
	if !filepath.IsAbs(name) {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" || name != filepath.Base(name) {
			return nil, fmt.Errorf("read credential %q: systemd gave none; add LoadCredential=%s:FILE to the unit, or name an absolute path", name, name)
		}
		path = filepath.Join(dir, name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || len(raw) > maxSecret {
		return nil, fmt.Errorf("read credential %s: it has %d bytes, want 1 to %d", path, len(raw), maxSecret)
	}
	return raw, nil
}

func (s sender) webhook(ctx context.Context, set config.Notify, server string, m Message, details string) error {
	ctx, cancel := context.WithTimeout(ctx, webhookLimit)
	defer cancel()
	key, err := secret(set.WebhookCredential)
	if err != nil {
		return err
	}
	body, err := json.Marshal(Body{Server: server, ID: m.ID, Title: subject(server, m.Event), Event: m.Event, Text: details})
	if err != nil {
		return fmt.Errorf("encode webhook: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, set.Webhook, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call webhook: %w", bare(err))
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "labswarm/"+version.String())
	req.Header.Set(HeaderTime, stamp)
	req.Header.Set(HeaderSig, Sign(key, stamp, body))
	// A redirect could carry the report to another place than the admin named.
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: s.tls(req.URL.Hostname()), Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("call webhook at %s: %w", req.URL.Host, bare(err))
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	err = errors.Join(err, res.Body.Close())
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("call webhook at %s: it answered %s", req.URL.Host, res.Status)
	}
	return err
}

// bare drops the URL from an error: tokens often stand in paths.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// mail sends one message to all receivers. Without TLS nothing is sent.
func (s sender) mail(ctx context.Context, set config.Notify, server string, m Message, details string) error {
	ctx, cancel := context.WithTimeout(ctx, mailLimit)
	defer cancel()
	host, port, err := net.SplitHostPort(set.MailHost)
	if err != nil {
		host, port = set.MailHost, "587"
	}
	addr := net.JoinHostPort(host, port)
	fault := func(err error) error { return fmt.Errorf("send mail by %s: %w", addr, err) }
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fault(err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // ends every wait below
	if port == "465" {
		conn = tls.Client(conn, s.tls(host))
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return fault(errors.Join(err, conn.Close()))
	}
	defer c.Close() //nolint:errcheck // Quit has said whether the mail was taken
	if err := s.greet(c, set, host, port); err != nil {
		return fault(err)
	}
	from := set.MailFrom
	if from == "" {
		name, err := os.Hostname()
		if err != nil || name == "" {
			name = "localhost"
		}
		from = "labswarm@" + name
	}
	if err := c.Mail(from); err != nil {
		return fault(err)
	}
	for _, to := range set.MailTo {
		if err := c.Rcpt(to); err != nil {
			return fault(fmt.Errorf("%s: %w", to, err))
		}
	}
	w, err := c.Data()
	if err != nil {
		return fault(err)
	}
	_, err = w.Write(letter(from, set.MailTo, server, m, details, time.Now()))
	if err = errors.Join(err, w.Close()); err != nil {
		return fault(err)
	}
	_ = c.Quit() // the mail was taken when Data ended well
	return nil
}

// greet makes the line private, and logs in if there is a user.
func (s sender) greet(c *smtp.Client, set config.Notify, host, port string) error {
	if port != "465" {
		if has, _ := c.Extension("STARTTLS"); !has {
			return errors.New("the server offers no STARTTLS, and reports are not sent in the open: use port 465, or another server")
		}
		if err := c.StartTLS(s.tls(host)); err != nil {
			return err
		}
	}
	if set.MailUser == "" {
		return nil
	}
	pass, err := secret(set.MailPasswordCredential)
	if err != nil {
		return err
	}
	return c.Auth(smtp.PlainAuth("", set.MailUser, string(pass), host))
}

// letter is the mail as text. Names of hosts are in it: headers are encoded, and the text goes as base64, so that no line of it is more than text.
func letter(from string, to []string, server string, m Message, details string, now time.Time) []byte {
	var b bytes.Buffer
	id := make([]byte, 12)
	_, _ = rand.Read(id) // never fails
	head := func(name, value string) {
		fmt.Fprintf(&b, "%s: %s\r\n", name, strings.NewReplacer("\r", "", "\n", "").Replace(value))
	}
	head("From", from)
	head("To", strings.Join(to, ", "))
	head("Subject", mime.QEncoding.Encode("utf-8", subject(server, m.Event)))
	head("Date", now.Format(time.RFC1123Z))
	head("Message-ID", "<"+hex.EncodeToString(id)+"@labswarm>")
	head("Auto-Submitted", "auto-generated")
	head("MIME-Version", "1.0")
	head("Content-Type", "text/plain; charset=utf-8")
	head("Content-Transfer-Encoding", "base64")
	b.WriteString("\r\n")
	text := m.Event.Text + "\n"
	if details != "" {
		text += "\n" + details
	}
	enc := base64.StdEncoding.EncodeToString([]byte(text))
	for len(enc) > 76 {
		b.WriteString(enc[:76] + "\r\n")
		enc = enc[76:]
	}
	b.WriteString(enc + "\r\n")
	return b.Bytes()
}
