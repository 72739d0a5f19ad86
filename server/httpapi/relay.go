package httpapi

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"labswarm/api"
)

// RelayService is what the relays' routes on the agent listener need. token is
// what the relay showed; it is judged behind this interface. key is that of its
// TLS certificate.
type RelayService interface {
	Report(ctx context.Context, token string, key ed25519.PublicKey, from netip.Addr, r *api.RelayReport) (api.RelayReply, error)
	File(ctx context.Context, token, name, version, file string) ([]byte, error)
}

// Limits of the relays' routes.
const (
	relayBody    = 128 << 10
	relayPerHost = 10 // requests per second and source address, burst 30
	maxToken     = 256
)

// AddRelays opens the relays' routes on the agent listener. Call it before
// Serve.
func (a *Agent) AddRelays(svc RelayService) {
	limit := newSources(relayPerHost, 3*relayPerHost, maxSources)
	guard := func(h func(w http.ResponseWriter, r *http.Request, token string) error) http.Handler {
		return wrap(a.log, func(w http.ResponseWriter, r *http.Request) error {
			if !limit.allow(from(r)) {
				return fail(http.StatusTooManyRequests, api.CodeTooManyTries, "too many requests: try again in a moment")
			}
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok || len(token) > maxToken {
				return fail(http.StatusUnauthorized, api.CodeBadToken, "no relay's token was shown")
			}
			return h(w, r, token)
		})
	}
	a.mux.Handle("POST "+api.RouteRelayReport, guard(func(w http.ResponseWriter, r *http.Request, token string) error {
		var p api.RelayReport
		if err := decode(w, r, relayBody, &p); err != nil {
			return err
		}
		key, err := clientKey(r)
		if err != nil {
			return err
		}
		rep, err := svc.Report(r.Context(), token, key, from(r), &p)
		if err != nil {
			return err
		}
		return answer(w, rep)
	}))
	a.mux.Handle("GET "+api.RouteRelayImage+"{name}/{version}/{file}", guard(func(w http.ResponseWriter, r *http.Request, token string) error {
		file := r.PathValue("file")
		if !slices.Contains(imageFiles, file) {
			return fail(http.StatusNotFound, api.CodeNotFound, "no such image file")
		}
		raw, err := svc.File(r.Context(), token, r.PathValue("name"), r.PathValue("version"), file)
		if err != nil {
			return err
		}
		a.send(w, raw)
		return nil
	}))
}

// RelayAdmin keeps the book of relays.
type RelayAdmin interface {
	Relays(ctx context.Context) ([]api.Relay, error)
	AddRelay(ctx context.Context, name string) (api.RelayToken, error)
	RemoveRelay(ctx context.Context, name string) error
}

func (a *Admin) relayRoutes() []Route {
	return []Route{
		{Method: "GET", Path: api.RouteRelays, Summary: "all relays", Out: []api.Relay{}, h: get(a.svc.Relays)},
		{Method: "POST", Path: api.RouteRelays, Role: api.RoleAdmin, Secret: true, Summary: "make a relay's token", In: api.RelayAdd{}, Out: api.RelayToken{}, h: a.addRelay},
		{Method: "DELETE", Path: api.RouteRelays + "/{name}", Role: api.RoleAdmin, Summary: "strike a relay off", h: a.removeRelay},
	}
}

func (a *Admin) addRelay(w http.ResponseWriter, r *http.Request) error {
	var req api.RelayAdd
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	out, err := a.svc.AddRelay(r.Context(), req.Name)
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Admin) removeRelay(w http.ResponseWriter, r *http.Request) error {
	if err := a.svc.RemoveRelay(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
