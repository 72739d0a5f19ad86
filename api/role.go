package api

// Role is what somebody may do over the admin API. Each role may do all that
// the ones before it may.
type Role int

// Roles, from the least to the most. The zero value may only look.
const (
	RoleViewer   Role = iota // read
	RoleOperator             // jobs, waking, answers to questions
	RoleAdmin                // all
)

// String is the role's name in tokens, configuration and documents.
func (r Role) String() string {
	switch r {
	case RoleViewer:
		return "viewer"
	case RoleOperator:
		return "operator"
	default:
		return "admin"
	}
}
