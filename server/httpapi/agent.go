package httpapi

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"labswarm/api"
)

// AgentService is what the agent listener needs. cert is the hex SHA-256 of
// the client certificate's public key: the identity of one boot. key is that
// public key.
type AgentService interface {
	Enrol(ctx context.Context, cert string, key ed25519.PublicKey, from netip.Addr, req *api.EnrolRequest) (api.EnrolReply, error)
	Order(ctx context.Context, cert string) (json.RawMessage, error)
	ImageFile(ctx context.Context, cert, file string) ([]byte, error)
	Commence(ctx context.Context, cert string, req *api.CommenceRequest) (json.RawMessage, error)
	Progress(ctx context.Context, cert string, from netip.Addr, p *api.Progress) (api.ProgressReply, error)
	Result(ctx context.Context, cert string, r *api.Result) (api.ResultAck, error)
	// CaptureState refuses sessions that do not capture.
	CaptureState(ctx context.Context, cert string) (api.CaptureState, error)
	CaptureDraft(ctx context.Context, cert string, d *api.CaptureDraft) (api.CaptureState, error)
	// CaptureBase returns the hashes of the base's cells.
	CaptureBase(ctx context.Context, cert string) ([]byte, error)
	// CaptureCells reads body to its end; abort ends a read that waits.
	CaptureCells(ctx context.Context, cert string, body io.Reader, abort func()) (api.CaptureState, error)
	CaptureFinish(ctx context.Context, cert string) (api.CaptureState, error)
	SaveLog(ctx context.Context, cert string, req *api.LogRequest) error
	// Subscribe delivers the newest assignment as it changes.
	Subscribe(ctx context.Context, cert string) (ch <-chan api.Assignment, cancel func(), err error)
	// Commands returns the hints for the agent now; Wake tells when to ask again.
	Commands(ctx context.Context, cert string) []string
	Wake() (ch <-chan struct{}, cancel func())
}

// Limits of the agent listener.
const (
	enrolBody    = 128 << 10
	smallBody    = 16 << 10
	logBody      = 300 << 10
	enrolPerS    = 50 // in all
	enrolPerHost = 1  // per second and source address, burst 5
	maxSources   = 4096
	lookEvery    = time.Second // for commands on an event stream
)

// imageFiles are the files of an image version that an agent may fetch.
var imageFiles = []string{"manifest.json", "manifest.sig", "image.torrent", "used.bin", "hashes.bin", "hooks.bin"}

// Agent is the agent listener.
type Agent struct {
	svc    AgentService
	log    *slog.Logger
	mux    *http.ServeMux
	srv    *http.Server
	all    *rate.Limiter
	source *sources
}

// NewAgent prepares the listener; cert is the server's self-signed certificate
// over its pinned ed25519 key.
func NewAgent(svc AgentService, cert tls.Certificate, log *slog.Logger) *Agent {
	a := &Agent{svc: svc, log: log, all: rate.NewLimiter(enrolPerS, enrolPerS), source: newSources(enrolPerHost, 5, maxSources)}
	mux := http.NewServeMux()
	a.mux = mux
	for route, h := range map[string]handler{
		"POST " + api.RouteEnrol:         a.enrol,
		"GET " + api.RouteOrder:          a.order,
		"GET " + api.RouteImage:          a.image,
		"POST " + api.RouteCommence:      a.commence,
		"POST " + api.RouteProgress:      a.progress,
		"GET " + api.RouteEvents:         a.events,
		"POST " + api.RouteResult:        a.result,
		"POST " + api.RouteLog:           a.keepLog,
		"GET " + api.RouteCapture:        a.captureState,
		"POST " + api.RouteCapture:       a.captureDraft,
		"GET " + api.RouteCaptureBase:    a.captureBase,
		"POST " + api.RouteCaptureCells:  a.captureCells,
		"POST " + api.RouteCaptureFinish: a.captureFinish,
	} {
		mux.Handle(route, wrap(log, h))
	}
	a.srv = server(mux, log)
	a.srv.TLSConfig = &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		VerifyConnection:       onlyEd25519,
	}
	return a
}

// Handler is the listener's handler without its TLS, for tests.
func (a *Agent) Handler() http.Handler { return a.srv.Handler }

// onlyEd25519 refuses client certificates of other key types; TLS has proven
// possession of the key. Dates and names are not looked at: the certificate is
// made by the agent for this boot, maybe in the year 1970.
func onlyEd25519(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) != 1 {
		return errors.New("exactly one client certificate expected")
	}
	if _, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok {
		return errors.New("client certificate: an ed25519 key expected")
	}
	return nil
}

// CertID is the identity of a boot: hex SHA-256 of the certificate's public
// key (SubjectPublicKeyInfo, RFC 5280 4.1).
func CertID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Serve answers on l until ctx ends; then open requests are cut, because
// agents retry.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	return serve(ctx, a.srv, tls.NewListener(l, a.srv.TLSConfig))
}

func serve(ctx context.Context, srv *http.Server, l net.Listener) error {
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// cert returns the identity of the caller.
func cert(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", fail(http.StatusForbidden, api.CodeNoSession, "no client certificate")
	}
	return CertID(r.TLS.PeerCertificates[0]), nil
}

func from(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// clientKey is the key of the client's certificate.
func clientKey(r *http.Request) (ed25519.PublicKey, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) == 1 {
		if key, ok := r.TLS.PeerCertificates[0].PublicKey.(ed25519.PublicKey); ok {
			return key, nil
		}
	}
	return nil, fail(http.StatusForbidden, api.CodeNoSession, "no ed25519 client certificate") // onlyEd25519 refused it before
}

func (a *Agent) enrol(w http.ResponseWriter, r *http.Request) error {
	if !a.source.allow(from(r)) || !a.all.Allow() {
		return fail(http.StatusTooManyRequests, api.CodeTooManyTries, "too many enrolments: try again in a moment")
	}
	var req api.EnrolRequest
	return withBody(w, r, enrolBody, &req, func(cert string) (any, error) {
		key, err := clientKey(r)
		if err != nil {
			return nil, err
		}
		return a.svc.Enrol(r.Context(), cert, key, from(r), &req)
	})
}

// withBody decodes, calls and answers.
func withBody(w http.ResponseWriter, r *http.Request, limit int64, into any, call func(cert string) (any, error)) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	if err := decode(w, r, limit, into); err != nil {
		return err
	}
	out, err := call(id)
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Agent) order(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	env, err := a.svc.Order(r.Context(), id)
	if err != nil {
		return err
	}
	if env == nil {
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return answer(w, env)
}

func (a *Agent) image(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(r.URL.Path, api.RouteImage)
	if !slices.Contains(imageFiles, name) {
		return fail(http.StatusNotFound, api.CodeNotFound, "no such image file")
	}
	raw, err := a.svc.ImageFile(r.Context(), id, name)
	if err != nil {
		return err
	}
	if raw == nil {
		return fail(http.StatusNotFound, api.CodeNotFound, "this image version has no %s", name)
	}
	a.send(w, raw)
	return nil
}

func (a *Agent) captureBase(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	raw, err := a.svc.CaptureBase(r.Context(), id)
	if err != nil {
		return err
	}
	a.send(w, raw)
	return nil
}

// send writes an image file.
func (a *Agent) send(w http.ResponseWriter, raw []byte) {
	// Up to some MiB: a slow link gets more time than a small answer.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		a.log.Debug("write deadline", "err", err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(raw) // the reader has gone: it asks again
}

func (a *Agent) commence(w http.ResponseWriter, r *http.Request) error {
	var req api.CommenceRequest
	return withBody(w, r, smallBody, &req, func(cert string) (any, error) { return a.svc.Commence(r.Context(), cert, &req) })
}

func (a *Agent) progress(w http.ResponseWriter, r *http.Request) error {
	var p api.Progress
	return withBody(w, r, smallBody, &p, func(cert string) (any, error) { return a.svc.Progress(r.Context(), cert, from(r), &p) })
}

func (a *Agent) result(w http.ResponseWriter, r *http.Request) error {
	var res api.Result
	return withBody(w, r, smallBody, &res, func(cert string) (any, error) { return a.svc.Result(r.Context(), cert, &res) })
}

func (a *Agent) keepLog(w http.ResponseWriter, r *http.Request) error {
	var req api.LogRequest
	id, err := cert(r)
	if err != nil {
		return err
	}
	if err := decode(w, r, logBody, &req); err != nil {
		return err
	}
	if err := a.svc.SaveLog(r.Context(), id, &req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// events streams assignments and hints until the agent leaves.
func (a *Agent) events(w http.ResponseWriter, r *http.Request) error {
	id, err := cert(r)
	if err != nil {
		return err
	}
	assigned, cancel, err := a.svc.Subscribe(r.Context(), id)
	if err != nil {
		return err
	}
	defer cancel()
	wake, stop := a.svc.Wake()
	defer stop()
	s, err := newStream(w)
	if err != nil {
		return err
	}
	alive, look := time.NewTicker(keepAlive), time.NewTicker(lookEvery)
	defer alive.Stop()
	defer look.Stop()
	news := false
	told := a.tell(r.Context(), s, id, nil)
	for told.err == nil {
		select {
		case <-r.Context().Done():
			return nil
		case as, ok := <-assigned:
			if !ok {
				return nil // the swarm ended
			}
			told.err = s.send("assign", 0, api.AgentEvent{Kind: "assign", Assignment: &as})
		case <-wake: // every commit of a whole room: look once a second at most
			news = true
		case <-look.C:
			if news {
				news, told = false, a.tell(r.Context(), s, id, told.said)
			}
		case <-alive.C:
			told.err = s.comment("alive")
		}
	}
	a.log.Debug("agent event stream ended", "err", told.err)
	return nil
}

type told struct {
	said []string
	err  error
}

// tell sends the commands that were not said yet.
func (a *Agent) tell(ctx context.Context, s *stream, cert string, said []string) told {
	now := a.svc.Commands(ctx, cert)
	for _, c := range now {
		if slices.Contains(said, c) {
			continue
		}
		if err := s.send("command", 0, api.AgentEvent{Kind: "command", Command: c}); err != nil {
			return told{err: err}
		}
	}
	return told{said: now}
}
