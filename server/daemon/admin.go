package daemon

import (
	"context"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/internal/version"
	"labswarm/server/daemon/control"
	"labswarm/server/report"
)

// adminService adds what only the daemon knows to the engine.
type adminService struct {
	*control.Engine
	s *server
}

// Server implements httpapi.AdminService.
func (a adminService) Server(ctx context.Context) (api.ServerInfo, error) {
	hosts, live, err := a.Counts(ctx)
	return api.ServerInfo{Name: a.s.cfg.Name, Version: version.String(), Started: a.s.begun.UTC(), Interface: a.s.cfg.Interface, DHCP: a.s.cfg.DHCP,
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
