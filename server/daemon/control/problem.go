package control

import (
	"errors"
	"fmt"
	"net/http"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/schedule"
)

func notFound(format string, a ...any) error {
	return &api.Problem{Status: http.StatusNotFound, Title: "not known", Code: api.CodeNotFound, Detail: fmt.Sprintf(format, a...)}
}

func conflict(code, format string, a ...any) error {
	return &api.Problem{Status: http.StatusConflict, Title: "conflict", Code: code, Detail: fmt.Sprintf(format, a...)}
}

func badRequest(code, format string, a ...any) error {
	return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "cannot be done as asked", Code: code, Detail: fmt.Sprintf(format, a...)}
}

// problem turns the typed errors of the pure packages into answers; anything
// else stays as it is (an internal error).
func problem(err error) error {
	var nf *inventory.NotFoundError
	var inv *inventory.InvalidError
	var con *inventory.ConflictError
	var ref *job.RefusedError
	var sch *schedule.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &nf):
		return notFound("%s", nf)
	case errors.As(err, &inv):
		return badRequest(api.CodeUsage, "%s", inv)
	case errors.As(err, &sch):
		return badRequest(api.CodeUsage, "%s", sch)
	case errors.As(err, &con):
		return conflict(api.CodeConflict, "%s", con)
	case errors.As(err, &ref):
		return conflict(ref.Code, "%s", ref)
	}
	return err
}
