package daemon

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/internal/version"
	"labswarm/server/access"
	"labswarm/server/daemon/control"
	"labswarm/server/daemon/keeper"
	"labswarm/server/report"
)

// adminService adds what only the daemon knows to the engine.
type adminService struct {
	*control.Engine
	*keeper.Keeper
	*access.Book
	s *server
}

// Server implements httpapi.AdminService.
func (a adminService) Server(ctx context.Context) (api.ServerInfo, error) {
	hosts, live, err := a.Counts(ctx)
	if err != nil {
		return api.ServerInfo{}, err
	}
	learn, err := a.Learn(ctx)
	if err != nil {
		return api.ServerInfo{}, err
	}
	open, err := a.Questions(ctx)
	return api.ServerInfo{Learn: learn, Questions: len(open), Name: a.s.cfg.Name, Version: version.String(), Started: a.s.begun.UTC(), Interface: a.s.cfg.Interface, DHCP: a.s.cfg.DHCP,
		Address: a.s.ip.String(), KeyID: order.KeyID(a.s.keys.ServerPublic()), Ready: true, Hosts: hosts, LiveJobs: live}, err
}

// Report implements httpapi.AdminService.
func (a adminService) Report(ctx context.Context, id uint64) (any, error) {
	j, err := a.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	return report.Make(j, time.Now()), nil
}

// PutHost implements httpapi.AdminService: hosts and relays share the names of
// the plan.
func (a adminService) PutHost(ctx context.Context, h api.Host) (api.Host, error) {
	if err := a.s.nameTaken(h.Name); err != nil {
		return api.Host{}, err
	}
	return a.Engine.PutHost(ctx, h)
}

// nameTaken refuses a host name that a relay has.
func (s *server) nameTaken(name string) error {
	if !s.relays.Has(name) {
		return nil
	}
	return &api.Problem{Status: http.StatusConflict, Title: "conflict", Code: api.CodeConflict,
		Detail: fmt.Sprintf("save host %s: a relay has that name; choose another", name)}
}

// canEnrol reports whether learn mode has something to boot.
func (s *server) canEnrol() bool { return s.enrol }

// Relays implements httpapi.AdminService.
func (a adminService) Relays(ctx context.Context) ([]api.Relay, error) { return a.s.relays.List(ctx) }

// AddRelay implements httpapi.AdminService.
func (a adminService) AddRelay(ctx context.Context, name string) (api.RelayToken, error) {
	return a.s.relays.Add(ctx, name)
}

// RemoveRelay implements httpapi.AdminService.
func (a adminService) RemoveRelay(ctx context.Context, name string) error {
	return a.s.relays.Remove(ctx, name)
}
