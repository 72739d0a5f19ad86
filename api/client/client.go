// Package client talks to a labswarm server's admin socket. The console and
// the command line use it; it holds no business rule.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
)

// maxAnswer bounds one JSON answer, in bytes.
const maxAnswer = 32 << 20

// UnreachableError means that no server answers on the socket, or at the
// address.
type UnreachableError struct {
	Socket string // path, or host:port
	Remote bool
	Err    error
}

// Error names the socket and the cure.
func (e *UnreachableError) Error() string {
	if e.Remote {
		return fmt.Sprintf("reach the server at %s: %v; is `labswarm serve` running there with --admin-listen, and does a firewall let you through?", e.Socket, e.Err)
	}
	return fmt.Sprintf("reach the server at %s: %v; is `labswarm serve` running with this --state-dir, and may this user open the socket?", e.Socket, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Client is used from any goroutine. Make it with New.
type Client struct {
	socket string
	base   string       // of URLs
	token  string       // "" = the socket, which needs none
	short  *http.Client // with a time limit
	stream *http.Client // without: event streams
}

// New returns a client of the unix socket; nothing is opened yet.
func New(socket string) *Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:    2,
		IdleConnTimeout: 10 * time.Second,
	}
	return &Client{
		socket: socket,
		base:   "http://labswarm",
		short:  &http.Client{Transport: tr, Timeout: 30 * time.Second},
		stream: &http.Client{Transport: tr},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.short.CloseIdleConnections() }

// Socket returns the path of the admin socket, or the server's host:port.
func (c *Client) Socket() string { return c.socket }

// Server returns what the server says of itself.
func (c *Client) Server(ctx context.Context) (s api.ServerInfo, err error) {
	return s, c.call(ctx, http.MethodGet, api.RouteServer, nil, &s)
}

// Rooms lists the rooms with the names of their hosts.
func (c *Client) Rooms(ctx context.Context) (r []api.Room, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteRooms, nil, &r)
}

// Hosts lists all hosts.
func (c *Client) Hosts(ctx context.Context) (h []api.Host, err error) {
	return h, c.call(ctx, http.MethodGet, api.RouteHosts, nil, &h)
}

// Host returns one host.
func (c *Client) Host(ctx context.Context, name string) (h api.Host, err error) {
	return h, c.call(ctx, http.MethodGet, api.RouteHosts+"/"+url.PathEscape(name), nil, &h)
}

// PutHost adds a host, or changes the one of that name.
func (c *Client) PutHost(ctx context.Context, h api.Host) (out api.Host, err error) {
	return out, c.call(ctx, http.MethodPost, api.RouteHosts, h, &out)
}

// HostToEdit returns one host and the tag of its present state, for EditHost.
func (c *Client) HostToEdit(ctx context.Context, name string) (h api.Host, tag string, err error) {
	tag, err = c.exchange(ctx, http.MethodGet, api.RouteHosts+"/"+url.PathEscape(name), "", nil, &h)
	return h, tag, err
}

// EditHost is PutHost for a host that was read: it is refused with
// api.CodePrecondition when somebody changed the host since.
func (c *Client) EditHost(ctx context.Context, h api.Host, tag string) (out api.Host, err error) {
	_, err = c.exchange(ctx, http.MethodPost, api.RouteHosts, tag, h, &out)
	return out, err
}

// RemoveHost forgets a host.
func (c *Client) RemoveHost(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, api.RouteHosts+"/"+url.PathEscape(name), nil, nil)
}

// Relays lists the relays.
func (c *Client) Relays(ctx context.Context) (r []api.Relay, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteRelays, nil, &r)
}

// AddRelay makes a relay and the token it shows. A lost answer loses the token:
// remove the relay and add it again.
func (c *Client) AddRelay(ctx context.Context, name string) (t api.RelayToken, err error) {
	return t, c.call(ctx, http.MethodPost, api.RouteRelays, api.RelayAdd{Name: name}, &t)
}

// RemoveRelay ends a relay's token.
func (c *Client) RemoveRelay(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, api.RouteRelays+"/"+url.PathEscape(name), nil, nil)
}

// Images lists the usable image versions.
func (c *Client) Images(ctx context.Context) (i []api.Image, err error) {
	return i, c.call(ctx, http.MethodGet, api.RouteImages, nil, &i)
}

// Jobs lists jobs, newest first, without timelines.
func (c *Client) Jobs(ctx context.Context) (j []api.Job, err error) {
	return j, c.call(ctx, http.MethodGet, api.RouteJobs, nil, &j)
}

// Job returns one job with the timelines of its slots.
func (c *Client) Job(ctx context.Context, id uint64) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodGet, jobPath(id), nil, &j)
}

// Report returns the run report of a job: a JSON document whose form is stable
// for other tools.
func (c *Client) Report(ctx context.Context, id uint64) (r json.RawMessage, err error) {
	return r, c.call(ctx, http.MethodGet, jobPath(id)+"/report", nil, &r)
}

// CreateJob makes a job. A lost answer is safe to ask for again: every call
// carries an idempotency key, and is tried a second time with the same one.
// Without a plan it makes one and agrees to it: whoever typed j.Confirm knows
// what he does.
func (c *Client) CreateJob(ctx context.Context, j api.JobCreate) (out api.Job, err error) {
	j.DryRun = false
	if j.PlanDigest == "" {
		plan, err := c.PlanJob(ctx, j)
		if err != nil {
			return out, err
		}
		j.PlanDigest, j.ConfirmHosts = plan.PlanDigest, plan.Erase
	}
	return out, c.call(ctx, http.MethodPost, api.RouteJobs, j, &out)
}

// Capture orders an image of a host's disk, which is not written to. It is safe
// to repeat like CreateJob.
func (c *Client) Capture(ctx context.Context, image string, r api.CaptureCreate) (out api.Job, err error) {
	return out, c.call(ctx, http.MethodPost, api.RouteImages+"/"+url.PathEscape(image)+"/capture", r, &out)
}

// CancelJob releases the hosts that have not begun to write; the others finish.
func (c *Client) CancelJob(ctx context.Context, id uint64) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodPost, jobPath(id)+"/cancel", struct{}{}, &j)
}

func jobPath(id uint64) string { return api.RouteJobs + "/" + strconv.FormatUint(id, 10) }

// call sends one request; in and out may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	_, err := c.exchange(ctx, method, path, "", in, out)
	return err
}

// exchange is call for what is edited: match is an ETag for If-Match, "" = none;
// tag is the answer's.
func (c *Client) exchange(ctx context.Context, method, path, match string, in, out any) (tag string, err error) {
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return "", fmt.Errorf("encode request %s: %w", path, err)
		}
	}
	key, err := newKey()
	if err != nil {
		return "", err
	}
	res, err := c.send(ctx, c.short, method, path, body, key, match)
	if err != nil && method != http.MethodGet && ctx.Err() == nil && !refusedConn(err) {
		res, err = c.send(ctx, c.short, method, path, body, key, match)
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // read to its end below
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", c.away(err)
	case len(raw) > maxAnswer:
		return "", fmt.Errorf("read answer of %s %s: more than %d bytes", method, path, maxAnswer)
	}
	if res.StatusCode >= 300 {
		return "", problem(res, raw)
	}
	tag = res.Header.Get("ETag")
	if out == nil || len(raw) == 0 {
		return tag, nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return "", fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	return tag, nil
}

func (c *Client) send(ctx context.Context, hc *http.Client, method, path string, body []byte, key, match string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request %s: %w", path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method != http.MethodGet {
		req.Header.Set("Idempotency-Key", key)
	}
	if match != "" {
		req.Header.Set("If-Match", match)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := hc.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, c.away(cause(err))
	}
	return res, nil
}

// away is an error of the connection. A wrong key is no absence: waiting does
// not help.
func (c *Client) away(err error) error {
	var wrong *WrongKeyError
	if errors.As(err, &wrong) {
		return wrong
	}
	return &UnreachableError{Socket: c.socket, Remote: c.token != "", Err: err}
}

// cause drops net/http's prefix, which repeats a made-up URL.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func refusedConn(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func problem(res *http.Response, raw []byte) error {
	var p api.Problem
	if json.Unmarshal(raw, &p) == nil && p.Code != "" {
		return &p
	}
	return &api.Problem{Status: res.StatusCode, Title: res.Status, Code: api.CodeInternal, Detail: strings.TrimSpace(string(raw))}
}

func newKey() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make idempotency key: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}
