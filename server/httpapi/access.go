package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"labswarm/api"
)

// AccessService keeps tokens and the audit log.
type AccessService interface {
	Tokens(ctx context.Context) ([]api.Token, error)
	AddToken(ctx context.Context, req *api.TokenAdd) (api.TokenMade, error)
	RemoveToken(ctx context.Context, id string) error
	Audit(ctx context.Context, after uint64, limit int) (api.AuditPage, error)
}

const auditPage = 1000 // records in one answer

func (a *Admin) accessRoutes() []Route {
	return []Route{
		{Method: "GET", Path: api.RouteTokens, Role: api.RoleAdmin, Summary: "list the tokens", Out: []api.Token{}, h: get(a.svc.Tokens)},
		{Method: "POST", Path: api.RouteTokens, Role: api.RoleAdmin, SocketOnly: true, Secret: true, Summary: "make a token", In: api.TokenAdd{}, Out: api.TokenMade{}, h: a.addToken},
		{Method: "DELETE", Path: api.RouteTokens + "/{id}", Role: api.RoleAdmin, SocketOnly: true, Summary: "revoke a token", h: a.removeToken},
		{Method: "GET", Path: api.RouteAudit, Role: api.RoleAdmin, Summary: "read the audit log", Query: []string{"after", "limit"}, Out: api.AuditPage{}, h: a.audit},
		{Method: "GET", Path: api.RouteOpenAPI, Summary: "read this API as an OpenAPI 3.1 document", Out: map[string]any{}, h: a.openAPI},
	}
}

func (a *Admin) addToken(w http.ResponseWriter, r *http.Request) error {
	var req api.TokenAdd
	if err := decode(w, r, adminBody, &req); err != nil {
		return err
	}
	made, err := a.svc.AddToken(r.Context(), &req)
	if err != nil {
		return err
	}
	return answerStatus(w, http.StatusCreated, made)
}

func (a *Admin) removeToken(w http.ResponseWriter, r *http.Request) error {
	if err := a.svc.RemoveToken(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Admin) audit(w http.ResponseWriter, r *http.Request) error {
	after, err := number(r, "after", 0)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", auditPage)
	if err != nil {
		return err
	}
	page, err := a.svc.Audit(r.Context(), after, int(min(max(limit, 1), auditPage)))
	if err != nil {
		return err
	}
	return answer(w, page)
}

// number reads a query parameter; none = otherwise.
func number(r *http.Request, name string, otherwise uint64) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fail(http.StatusBadRequest, api.CodeUsage, "%s %q is no number", name, text)
	}
	return n, nil
}
