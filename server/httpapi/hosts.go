package httpapi

import (
	"context"
	"net/http"

	"labswarm/api"
)

// HostService knows the rooms and their PCs.
type HostService interface {
	Server(ctx context.Context) (api.ServerInfo, error)
	Rooms(ctx context.Context) ([]api.Room, error)
	Hosts(ctx context.Context) ([]api.Host, error)
	Host(ctx context.Context, name string) (api.Host, error)
	PutHost(ctx context.Context, h api.Host) (api.Host, error)
	RemoveHost(ctx context.Context, name string) error
}

func (a *Admin) hostRoutes() []Route {
	one := api.RouteHosts + "/{name}"
	return []Route{
		{Method: "GET", Path: api.RouteServer, Summary: "the server itself", Out: api.ServerInfo{}, h: get(a.svc.Server)},
		{Method: "GET", Path: api.RouteRooms, Summary: "all rooms", Out: []api.Room{}, h: get(a.svc.Rooms)},
		{Method: "GET", Path: api.RouteHosts, Summary: "all PCs", Out: []api.Host{}, h: get(a.svc.Hosts)},
		{Method: "POST", Path: api.RouteHosts, Role: api.RoleAdmin, Summary: "add or change a PC", In: api.Host{}, Out: api.Host{}, h: a.putHost},
		{Method: "GET", Path: one, Summary: "one PC", Out: api.Host{}, h: a.host},
		{Method: "DELETE", Path: one, Role: api.RoleAdmin, Summary: "forget a PC", h: a.removeHost},
	}
}

func (a *Admin) host(w http.ResponseWriter, r *http.Request) error {
	h, err := a.svc.Host(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return tagged(w, h, h.Editable())
}

func (a *Admin) putHost(w http.ResponseWriter, r *http.Request) error {
	var h api.Host
	if err := decode(w, r, adminBody, &h); err != nil {
		return err
	}
	out, err := a.svc.PutHost(r.Context(), h)
	if err != nil {
		return err
	}
	return tagged(w, out, out.Editable())
}

func (a *Admin) removeHost(w http.ResponseWriter, r *http.Request) error {
	if err := a.svc.RemoveHost(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
