package httpapi

import (
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

	h handler
}

// routes lists all of them. Each area keeps its own list beside its handlers.
func (a *Admin) routes() []Route {
	return slices.Concat(a.hostRoutes(), a.imageRoutes(), a.jobRoutes(), a.steerRoutes(), a.scheduleRoutes(), a.wakeRoutes(), a.relayRoutes(), a.eventRoutes())
}
