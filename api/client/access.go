package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"labswarm/api"
)

// Tokens lists the tokens.
func (c *Client) Tokens(ctx context.Context) (t []api.Token, err error) {
	return t, c.call(ctx, http.MethodGet, api.RouteTokens, nil, &t)
}

// AddToken makes a token. Its secret is in the answer only.
func (c *Client) AddToken(ctx context.Context, req api.TokenAdd) (t api.TokenMade, err error) {
	return t, c.call(ctx, http.MethodPost, api.RouteTokens, req, &t)
}

// RemoveToken revokes a token.
func (c *Client) RemoveToken(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, api.RouteTokens+"/"+url.PathEscape(id), nil, nil)
}

// Audit returns at most limit records after a number, oldest first.
func (c *Client) Audit(ctx context.Context, after uint64, limit int) (p api.AuditPage, err error) {
	return p, c.call(ctx, http.MethodGet, fmt.Sprintf("%s?after=%d&limit=%d", api.RouteAudit, after, limit), nil, &p)
}

// OpenAPI returns the server's description of its API.
func (c *Client) OpenAPI(ctx context.Context) (doc json.RawMessage, err error) {
	return doc, c.call(ctx, http.MethodGet, api.RouteOpenAPI, nil, &doc)
}
