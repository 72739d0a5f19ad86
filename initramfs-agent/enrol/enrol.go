// Package enrol is the work of the enrol profile in one boot: an unknown PC
// shows a code until the admin has typed it with a seat, or has bound the PC
// otherwise. It reads, asks and shows; it neither fetches nor obeys an order,
// and imports nothing that can write a disk (guard_test.go). Called by main.
package enrol

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"labswarm/api"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/screen"
	"labswarm/internal/version"
)

// patience is how long the server may be away before the machine boots its own
// disk.
const patience = 2 * time.Minute

// Config is what an enrolment needs.
type Config struct {
	Server  netip.AddrPort
	Pin     ed25519.PublicKey // the pinned key this server is known by
	Disks   func() ([]api.Disk, error)
	Missing func() []string // devices without driver; may be nil
	Source  identity.Source
	Screen  *screen.Screen
	Log     *slog.Logger
}

// Outcome says who the machine is now and how it goes on.
type Outcome struct {
	Host, Room, Seat string // "" = it was not bound
	PowerOff         bool   // else restart
	Reason           string // why it was not
}

// Run asks until the PC is bound, or there is nothing to wait for any more.
func Run(ctx context.Context, cfg Config) (Outcome, error) {
	c, err := contact.New(cfg.Server, cfg.Pin)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	heard := time.Now()
	for n := 0; ; n++ {
		rep, err := ask(ctx, cfg, c)
		wait := contact.Backoff(n)
		switch {
		case err != nil && (!contact.Temporary(err) || time.Since(heard) > patience):
			return Outcome{}, refused(cfg, err)
		case err != nil:
			cfg.Log.Warn("the server does not answer", "server", cfg.Server.String(), "err", err)
			cfg.Screen.Update(func(v *screen.View) { v.Detail = "the server does not answer, trying again" })
		case rep.Status == api.EnrolPending:
			heard, n = time.Now(), -1
			cfg.Screen.Update(func(v *screen.View) { v.EnrolCode, v.Language, v.Detail = rep.EnrolCode, rep.Language, "" })
			wait = time.Duration(min(max(rep.RetryAfterS, 1), 30)) * time.Second
		case rep.Status == api.EnrolBound:
			cfg.Screen.Update(func(v *screen.View) {
				v.Host, v.Room, v.Seat, v.Language, v.EnrolCode, v.Bound = rep.Host, rep.Room, rep.Seat, rep.Language, "", true
			})
			return Outcome{Host: rep.Host, Room: rep.Room, Seat: rep.Seat, PowerOff: rep.After == "poweroff"}, nil
		default: // go_local, and any word that this build does not know
			reason := rep.Reason
			if reason == "" {
				reason = "the server does not enrol this machine"
			}
			cfg.Screen.Update(func(v *screen.View) { v.EnrolCode, v.Code, v.Problem = "", api.CodeNoOrder, reason })
			return Outcome{Reason: reason}, nil
		}
		select {
		case <-ctx.Done():
			return Outcome{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func ask(ctx context.Context, cfg Config, c *contact.Client) (api.EnrolReply, error) {
	disks, err := cfg.Disks()
	if err != nil {
		cfg.Log.Warn("disks", "err", err) // they are only shown
	}
	var missing []string
	if cfg.Missing != nil {
		missing = cfg.Missing()
	}
	ev := cfg.Source.Collect(disks, missing)
	cfg.Screen.Update(func(v *screen.View) { v.Serial, v.Server = ev.Serial, cfg.Server.Addr().String() })
	for _, n := range ev.NICs {
		if n.Boot || len(ev.NICs) == 1 {
			cfg.Screen.Update(func(v *screen.View) { v.MAC, v.SpeedMbps = n.MAC, n.SpeedMbps })
		}
	}
	return c.Enrol(ctx, api.EnrolRequest{Version: version.String(), Profile: api.ProfileEnrol, Evidence: ev})
}

// refused gives an error that ends the enrolment its code.
func refused(cfg Config, err error) error {
	var p *api.Problem
	switch {
	case contact.WrongKey(err):
		return &api.Fault{Code: api.CodeServerKey, Text: fmt.Sprintf("the server %s does not have the key that this initramfs trusts", cfg.Server), Err: err}
	case errors.As(err, &p):
		return &api.Fault{Code: api.CodeNoOrder, Text: "the server does not enrol this machine: " + p.Detail, Err: err}
	}
	return &api.Fault{Code: api.CodeNoServer, Text: fmt.Sprintf("the server %s does not answer; the machine boots its own disk", cfg.Server), Err: err}
}
