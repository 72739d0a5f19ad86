package client

import (
	"context"
	"net/http"

	"labswarm/api"
)

// Wake switches hosts on.
func (c *Client) Wake(ctx context.Context, req api.WakeRequest) (r api.WakeReply, err error) {
	return r, c.call(ctx, http.MethodPost, api.RouteWake, req, &r)
}
