package client

import (
	"context"
	"net/http"

	"labswarm/api"
)

// Snapshot has the server copy its state.
func (c *Client) Snapshot(ctx context.Context) (s api.Snapshot, err error) {
	return s, c.call(ctx, http.MethodPost, api.RouteSnapshot, nil, &s)
}

// Doctor has the server examine itself and its network; it takes some seconds.
func (c *Client) Doctor(ctx context.Context) (d api.Checkup, err error) {
	return d, c.call(ctx, http.MethodGet, api.RouteDoctor, nil, &d)
}
