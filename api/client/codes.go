package client

import (
	"context"
	"net/http"
	"net/url"

	"labswarm/api"
)

// Code finds the failure behind a code that was read out from a PC's screen.
func (c *Client) Code(ctx context.Context, code string) (r api.ReadOut, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteCodes+"/"+url.PathEscape(code), nil, &r)
}
