package client

import (
	"context"
	"net/http"
	"strconv"

	"labswarm/api"
)

// ImageStates lists what the server knows of each image version.
func (c *Client) ImageStates(ctx context.Context) (s []api.ImageState, err error) {
	return s, c.call(ctx, http.MethodGet, api.RouteImageStates, nil, &s)
}

// ImageGarbage lists the versions that nobody needs, but for the newest keep of each name.
func (c *Client) ImageGarbage(ctx context.Context, keep int) (g []api.ImageGarbage, err error) {
	return g, c.call(ctx, http.MethodGet, api.RouteImageGarbage+"?keep="+strconv.Itoa(keep), nil, &g)
}

// RemoveImage removes one version.
func (c *Client) RemoveImage(ctx context.Context, req api.ImageRemove) error {
	return c.call(ctx, http.MethodPost, api.RouteImageRemove, req, nil)
}

// PinImage keeps a version from being removed, or ends that.
func (c *Client) PinImage(ctx context.Context, req api.ImagePin) error {
	return c.call(ctx, http.MethodPost, api.RouteImagePin, req, nil)
}

// CheckedImage tells the server what reading a version found.
func (c *Client) CheckedImage(ctx context.Context, check api.ImageCheck) error {
	return c.call(ctx, http.MethodPost, api.RouteImageChecked, check, nil)
}

// HealImage has damaged cells made right again, as far as somebody holds them.
func (c *Client) HealImage(ctx context.Context, req api.ImageHeal) (h api.ImageHealed, err error) {
	return h, c.call(ctx, http.MethodPost, api.RouteImageHeal, req, &h)
}
