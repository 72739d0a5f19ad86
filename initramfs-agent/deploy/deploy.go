// Package deploy is the agent's work in one boot: enrol, check the order and
// the disk, ask for the commence, write, read back, report, help the others,
// and say how the machine is to go on. The states are those of control.md 2.1.
//
// It ties the agent's packages together and talks to one server. Called by
// main, under supervise.
package deploy

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/report"
	"labswarm/initramfs-agent/screen"
	"labswarm/initramfs-agent/selftest"
	"labswarm/internal/version"
)

// Limits that a person may have to wait for. Zero values in Config stand for
// these.
const (
	orderWait  = 60 * time.Second // without an order the machine boots its own disk
	resultWait = 30 * time.Minute // for a server that is away when all is done
	seedWait   = 10 * time.Minute // as a source for others, unless released earlier
	starveWait = 30 * time.Minute // without a single cell while writing
)

// Config is what a deployment needs.
type Config struct {
	Server  netip.AddrPort
	Pins    bootenv.Pins
	Pin     ed25519.PublicKey // the pinned key this server is known by
	Disks   *disk.Set
	Source  identity.Source
	Missing func() []string           // devices without driver; may be nil
	Load    func(module string) error // of kernel modules; nil = the kernel finds them itself
	Listen  string                    // ADDRESS:PORT where other hosts fetch cells
	Screen  *screen.Screen
	Log     *slog.Logger
	LogText func() string // the last log lines, sent after a failure

	OrderWait time.Duration // 0 = 60 s
	SeedWait  time.Duration // 0 = 10 min

	SelfTest selftest.Options // of a suspect; zero: as the machine's memory allows
}

// Outcome says how the machine goes on.
type Outcome struct {
	PowerOff  bool   // else restart
	Verified  bool   // the disk was written and proven in this boot
	Committed bool   // the point of no return was passed
	Reason    string // why the machine restarts without having been written
}

// localError ends a session that has nothing to do here: the machine boots its
// own disk, untouched.
type localError struct{ reason string }

func (e *localError) Error() string { return "boot the local disk: " + e.reason }

// Run does one boot session. The outcome counts also when there is an error;
// the error is what is shown to people, and nil when the machine was simply
// not meant to be written.
func Run(ctx context.Context, cfg Config) (Outcome, error) {
	if cfg.OrderWait == 0 {
		cfg.OrderWait = orderWait
	}
	if cfg.SeedWait == 0 {
		cfg.SeedWait = seedWait
	}
	c, err := contact.New(cfg.Server, cfg.Pin)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return Outcome{}, fmt.Errorf("listen for other hosts on %s: %w", cfg.Listen, err)
	}
	s := newSession(cfg, c, ln)
	err = s.run(ctx)
	out := Outcome{Verified: s.verified(), Committed: s.committed(), PowerOff: s.powerOff}
	var local *localError
	if errors.As(err, &local) {
		out.Reason = local.reason
		cfg.Log.Info("the machine boots its own disk", "reason", local.reason)
		return out, nil
	}
	return out, err
}

func (s *session) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		cancel(nil)
		s.listenerDone()
		s.wg.Wait()
	}()
	s.cancel = cancel
	if err := s.enrol(ctx); err != nil {
		return s.cause(ctx, err)
	}
	s.goSafe(func() error { return s.progressLoop(ctx) })
	s.goSafe(func() error { return s.eventLoop(ctx) })
	s.goSafe(func() error { return s.doubtLoop(ctx) })
	err = s.cause(ctx, s.obeyOrder(ctx))
	var local *localError
	if err == nil || errors.As(err, &local) {
		return err
	}
	s.failed(ctx, err)
	return err
}

// obeyOrder fetches the order and does what it says: its type decides what can be done at all.
func (s *session) obeyOrder(ctx context.Context) error {
	env, err := s.await(ctx)
	if err != nil {
		return err
	}
	if env.Type == order.TypeCapture {
		return s.capture(ctx, env)
	}
	o, v, b, d, err := s.accept(ctx, env)
	if err != nil {
		return err
	}
	return s.deploy(ctx, o, v, b, d)
}

// cause prefers the reason why the session was ended over the error that its
// end made somewhere.
func (s *session) cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); err != nil && c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	return err
}

// enrol opens the session, or finds that there is nothing to do.
func (s *session) enrol(ctx context.Context) error {
	s.setState(api.StateEnrolled, "asking the server")
	deadline := bootenv.Uptime() + s.cfg.OrderWait
	reached := false
	for n := 0; ; n++ {
		disks, err := s.cfg.Disks.List()
		if err != nil {
			return err
		}
		var missing []string
		if s.cfg.Missing != nil {
			missing = s.cfg.Missing()
		}
		ev := s.cfg.Source.Collect(disks, missing)
		s.mu.Lock()
		s.link = bootLink(ev)
		s.mu.Unlock()
		s.cfg.Screen.Update(func(v *screen.View) { v.Serial, v.SpeedMbps = ev.Serial, bootLink(ev) })
		rep, err := s.c.Enrol(ctx, api.EnrolRequest{Version: version.String(), PeerPort: s.port(), Evidence: ev})
		if err == nil && !reached {
			reached, deadline = true, bootenv.Uptime()+s.cfg.OrderWait
		}
		wait := contact.Backoff(n)
		switch {
		case err != nil && !contact.Temporary(err):
			return s.refused(err)
		case err != nil:
			s.cfg.Log.Warn("the server does not answer", "server", s.cfg.Server.String(), "err", err)
			s.detail("the server does not answer, trying again")
		case rep.Status == api.EnrolOK:
			s.enrolled(rep)
			return nil
		case rep.Status == api.EnrolWait:
			s.enrolled(rep)
			s.detail(rep.Reason)
			wait, n = time.Duration(min(max(rep.RetryAfterS, 1), 30))*time.Second, -1
		default:
			return &localError{first(rep.Reason, "the server has no work for this machine")}
		}
		if bootenv.Uptime()+wait > deadline {
			if !reached {
				return &api.Fault{Code: api.CodeNoServer, Text: fmt.Sprintf("the server %s does not answer for %s; the machine boots its own disk", s.cfg.Server, s.cfg.OrderWait), Err: err}
			}
			return &localError{"no order within " + s.cfg.OrderWait.String()}
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// refused turns a final answer of the server into what it means: with a wrong
// key somebody must look, everything else sends the machine to its own disk.
func (s *session) refused(err error) error {
	if contact.WrongKey(err) {
		return &api.Fault{Code: api.CodeServerKey,
			Text: fmt.Sprintf("%s is not the server this boot trusts; it may be another server on the same network", s.cfg.Server), Err: err}
	}
	var p *api.Problem
	if errors.As(err, &p) {
		return &localError{p.Error()}
	}
	return err
}

// await fetches the order; none in time sends the machine to its own disk.
func (s *session) await(ctx context.Context) (*order.Envelope, error) {
	deadline := bootenv.Uptime() + s.cfg.OrderWait
	for n := 0; ; n++ {
		env, wait, err := s.c.Order(ctx)
		switch {
		case err != nil && !contact.Temporary(err):
			var p *api.Problem
			if errors.As(err, &p) || contact.WrongKey(err) {
				return nil, s.refused(err)
			}
			return nil, err // a malformed envelope is a refusal of ours, and reported
		case err != nil:
			wait = contact.Backoff(n)
			s.detail("the server does not answer, trying again")
		case env != nil:
			return env, nil
		default:
			n = -1
			s.detail("waiting for the order")
		}
		if bootenv.Uptime()+wait > deadline {
			return nil, &localError{"no order within " + s.cfg.OrderWait.String()}
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// failed reports the end of a session that went wrong, before or after the
// point of no return.
func (s *session) failed(ctx context.Context, err error) {
	code, text := report.Code(err)
	s.cfg.Log.Error("deployment failed", "code", code, "err", err)
	s.problem(code, text)
	// The session's context may be what failed; the report still has to go out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.reportTime())
	defer cancel()
	if s.cfg.LogText != nil {
		if err := s.c.Log(ctx, s.cfg.LogText()); err != nil {
			s.cfg.Log.Warn("log not sent", "err", err)
		}
	}
	s.mu.Lock()
	proof := s.proof
	s.mu.Unlock()
	if _, err := s.send(ctx, report.Failed(err, proof, s.base())); err != nil {
		s.cfg.Log.Error("failure not reported", "err", err)
	}
}

// reportTime is how long a failure is reported for: an untouched machine goes
// back to its own disk soon, a half-written one has nothing better to do.
func (s *session) reportTime() time.Duration {
	if s.committed() {
		return resultWait
	}
	return 20 * time.Second
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
