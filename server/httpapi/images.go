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
	HealImage(ctx context.Context, req api.ImageHeal) (api.ImageHealed, error)
}

func (a *Admin) imageRoutes() []Route {
	return []Route{
		{Method: "GET", Path: api.RouteImages, Summary: "all usable image versions", Out: []api.Image{}, h: get(a.svc.ImageList)},
		{Method: "GET", Path: api.RouteImageStates, Summary: "what the server knows of each version: checks, pins, quarantine", Out: []api.ImageState{}, h: get(a.svc.ImageStates)},
		{Method: "GET", Path: api.RouteImageGarbage, Summary: "what gc would remove", Query: []string{"keep"}, Out: []api.ImageGarbage{}, h: a.imageGarbage},
		{Method: "POST", Path: api.RouteImageRemove, Role: api.RoleAdmin, Summary: "remove a version", In: api.ImageRemove{}, h: post(a.svc.RemoveImage)},
		{Method: "POST", Path: api.RouteImagePin, Role: api.RoleAdmin, Summary: "keep a version, or no longer", In: api.ImagePin{}, h: post(a.svc.PinImage)},
		{Method: "POST", Path: api.RouteImageChecked, Role: api.RoleAdmin, Summary: "tell the result of a check", In: api.ImageCheck{}, h: post(a.svc.CheckedImage)},
		{Method: "POST", Path: api.RouteImageHeal, Role: api.RoleAdmin, Summary: "have damaged cells fetched back from relays and terminals", In: api.ImageHeal{}, Out: api.ImageHealed{}, h: ask(a.svc.HealImage)},
	}
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

// ask makes a handler of a command that has an answer.
func ask[In, Out any](do func(context.Context, In) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var req In
		if err := decode(w, r, adminBody, &req); err != nil {
			return err
		}
		out, err := do(r.Context(), req)
		if err != nil {
			return err
		}
		return answer(w, out)
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
