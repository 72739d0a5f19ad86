package httpapi

import (
	"net/http"
	"slices"

	"labswarm/api"
)

// Route is one admin route: the row from which come the handler's place, who
// may call it, and its lines in the OpenAPI document.
type Route struct {
	Method  string // GET, POST, PUT, PATCH or DELETE
	Path    string // pattern of net/http, with {names}
	Role    api.Role
	Summary string   // one line for people
	Query   []string // names of its query parameters
	In, Out any      // zero values of the bodies' types, nil = no body

	Or         any  // another form of the answer, nil = none
	SocketOnly bool // not over the network: keys and rights are given on the server
	Secret     bool // its answer holds a secret and is not kept for repeated requests

	// rooms says which rooms a request acts in. Without it an operator who is
	// limited to some rooms is refused.
	rooms func(r *http.Request, body []byte) ([]string, error)
	asks  func(body []byte) bool // this body asks only: nothing to log or to keep; nil = it acts
	rerun bool                   // the handler recognises a repeated Idempotency-Key by idemKey
	h     handler
}

// routes lists all of them. Each area keeps its own list beside its handlers.
func (a *Admin) routes() []Route {
	return slices.Concat(a.hostRoutes(), a.inventoryRoutes(), a.imageRoutes(), a.jobRoutes(), a.steerRoutes(), a.scheduleRoutes(), a.wakeRoutes(), a.codeRoutes(), a.relayRoutes(), a.eventRoutes(), a.accessRoutes(), a.opsRoutes(), a.reportRoutes())
}
