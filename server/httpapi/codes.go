package httpapi

import (
	"context"
	"net/http"

	"labswarm/api"
)

// CodeService finds failures by the code on a PC's screen.
type CodeService interface {
	Code(ctx context.Context, code string) (api.ReadOut, error)
}

func (a *Admin) codeRoutes() []Route {
	return []Route{{Method: "GET", Path: api.RouteCodes + "/{code}", Summary: "the failure behind a code that was read out from a PC's screen", Out: api.ReadOut{}, h: a.code}}
}

func (a *Admin) code(w http.ResponseWriter, r *http.Request) error {
	out, err := a.svc.Code(r.Context(), r.PathValue("code"))
	if err != nil {
		return err
	}
	return answer(w, out)
}
