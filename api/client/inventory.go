package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"labswarm/api"
)

// Room returns one room with its seats and hosts.
func (c *Client) Room(ctx context.Context, name string) (r api.Room, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteRooms+"/"+url.PathEscape(name), nil, &r)
}

// PutRoom adds a room, or changes the one of that name.
func (c *Client) PutRoom(ctx context.Context, r api.Room) (out api.Room, err error) {
	return out, c.call(ctx, http.MethodPost, api.RouteRooms, r, &out)
}

// RemoveRoom forgets a room without hosts.
func (c *Client) RemoveRoom(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, api.RouteRooms+"/"+url.PathEscape(name), nil, nil)
}

// MoveHost puts a host on another seat.
func (c *Client) MoveHost(ctx context.Context, name string, m api.HostMove) (h api.Host, err error) {
	return h, c.call(ctx, http.MethodPost, api.RouteHosts+"/"+url.PathEscape(name)+"/move", m, &h)
}

// AcceptDisks makes the disks that a host showed last its own.
func (c *Client) AcceptDisks(ctx context.Context, name string) (h api.Host, err error) {
	return h, c.call(ctx, http.MethodPost, api.RouteHosts+"/"+url.PathEscape(name)+"/accept-disk", nil, &h)
}

// Import checks a list, and saves it when asked to.
func (c *Client) Import(ctx context.Context, r api.ImportRequest) (out api.ImportResult, err error) {
	return out, c.call(ctx, http.MethodPost, api.RouteImport, r, &out)
}

// Export renders rooms or hosts as csv or toml.
func (c *Client) Export(ctx context.Context, what, format string) (out api.Export, err error) {
	q := url.Values{"what": {what}, "format": {format}}
	return out, c.call(ctx, http.MethodGet, api.RouteExport+"?"+q.Encode(), nil, &out)
}

// Learn returns learn mode, nil when it is not open.
func (c *Client) Learn(ctx context.Context) (l *api.Learn, err error) {
	return l, c.call(ctx, http.MethodGet, api.RouteLearn, nil, &l)
}

// OpenLearn opens learn mode.
func (c *Client) OpenLearn(ctx context.Context, l api.Learn) (out api.Learn, err error) {
	return out, c.call(ctx, http.MethodPost, api.RouteLearn, l, &out)
}

// CloseLearn ends learn mode.
func (c *Client) CloseLearn(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, api.RouteLearn, nil, nil)
}

// Enrolments lists the PCs that wait for a seat.
func (c *Client) Enrolments(ctx context.Context) (out []api.Enrolment, err error) {
	return out, c.call(ctx, http.MethodGet, api.RouteEnrolled, nil, &out)
}

// Bind puts a waiting PC on a seat.
func (c *Client) Bind(ctx context.Context, b api.EnrolBind) (h api.Host, err error) {
	return h, c.call(ctx, http.MethodPost, api.RouteEnrolled, b, &h)
}

// Questions lists what waits for an answer.
func (c *Client) Questions(ctx context.Context) (out []api.Question, err error) {
	return out, c.call(ctx, http.MethodGet, api.RouteQuestions, nil, &out)
}

// Answer answers a question.
func (c *Client) Answer(ctx context.Context, id uint64, answer string) (q api.Question, err error) {
	return q, c.call(ctx, http.MethodPost, api.RouteQuestions+"/"+strconv.FormatUint(id, 10), api.QuestionAnswer{Answer: answer}, &q)
}
