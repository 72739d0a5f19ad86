package httpapi

import (
	"context"
	"net/http"

	"labswarm/api"
)

// WakeService switches PCs on.
type WakeService interface {
	WakeHosts(ctx context.Context, req *api.WakeRequest, by string) (api.WakeReply, error)
}

func (a *Admin) wakeRoutes() []Route {
	return []Route{{Method: "POST", Path: api.RouteWake, Role: api.RoleOperator, Summary: "switch PCs on by magic packets, in waves", In: api.WakeRequest{}, Out: api.WakeReply{}, rooms: a.roomsOfWake, h: a.wake}}
}

func (a *Admin) wake(w http.ResponseWriter, r *http.Request) error {
	var req api.WakeRequest
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	out, err := a.svc.WakeHosts(r.Context(), &req, by(r))
	if err != nil {
		return err
	}
	return answer(w, out)
}
