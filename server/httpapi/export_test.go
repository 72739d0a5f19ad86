package httpapi

import (
	"net/http"
	"time"
)

// SetLag says how long a reader of events may take for one.
func (a *Admin) SetLag(d time.Duration) { a.lag = d }

// Table is the route table.
func (a *Admin) Table() []Route { return a.routes() }

// Bare is the admin API as a listener that names no caller would serve it.
func (a *Admin) Bare() http.Handler { return a.mux }

// Asks reports whether a body changes nothing.
func (rt *Route) Asks(body []byte) bool { return rt.asks != nil && rt.asks(body) }
