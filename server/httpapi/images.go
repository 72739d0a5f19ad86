package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"labswarm/api"
)

// ImageService looks after the versions of the image store.
type ImageService interface {
	ImageStates(ctx context.Context) ([]api.ImageState, error)
	ImageGarbage(ctx context.Context, keep int) ([]api.ImageGarbage, error)
	RemoveImage(ctx context.Context, req api.ImageRemove) error
	PinImage(ctx context.Context, req api.ImagePin) error
	CheckedImage(ctx context.Context, c api.ImageCheck) error
}

// post makes a handler of a command that has no answer.
func post[T any](do func(context.Context, T) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var req T
		if err := decode(w, r, adminBody, &req); err != nil {
			return err
		}
		if err := do(r.Context(), req); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (a *Admin) imageGarbage(w http.ResponseWriter, r *http.Request) error {
	keep, err := strconv.Atoi(r.URL.Query().Get("keep"))
	if err != nil {
		return fail(http.StatusBadRequest, api.CodeUsage, "keep %q is no number", r.URL.Query().Get("keep"))
	}
	list, err := a.svc.ImageGarbage(r.Context(), keep)
	if err != nil {
		return err
	}
	return answer(w, list)
}
