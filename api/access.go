package api

import "time"

// Token is a right to use the admin API from another machine, without its
// secret, of which the server keeps a hash only.
type Token struct {
	ID      string    `json:"id"`   // "t1"
	Name    string    `json:"name"` // for people: who or what holds it
	Role    string    `json:"role"` // viewer, operator, admin
	Rooms   []string  `json:"rooms,omitempty"`
	Created time.Time `json:"created"`
	By      string    `json:"by"` // who made it
	Expires time.Time `json:"expires,omitzero"`
	Used    time.Time `json:"used,omitzero"` // last use, to the minute
}

// TokenAdd asks for a token: POST /v1/tokens.
type TokenAdd struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Rooms    []string `json:"rooms,omitempty"`        // an operator's; none = all rooms
	ExpiresS int64    `json:"expires_in_s,omitempty"` // 0 = never
}

// TokenMade is a new token with its secret, which is shown this once.
type TokenMade struct {
	Token
	Secret      string `json:"token"`                 // lsw_...
	Listen      string `json:"listen,omitempty"`      // where the server takes it, "" = it has no --admin-listen
	Fingerprint string `json:"fingerprint,omitempty"` // of the server's key there
}

// Routes of access on the admin API.
const (
	RouteTokens  = "/v1/tokens"       // GET []Token; POST TokenAdd -> TokenMade; /{id} DELETE
	RouteAudit   = "/v1/audit"        // GET AuditPage; ?after=SEQ&limit=N
	RouteOpenAPI = "/v1/openapi.json" // GET: this API as an OpenAPI 3.1 document
)

// ParseRole reads a role's name.
func ParseRole(name string) (Role, bool) {
	for _, r := range []Role{RoleViewer, RoleOperator, RoleAdmin} {
		if r.String() == name {
			return r, true
		}
	}
	return RoleViewer, false
}
