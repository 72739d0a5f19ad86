package contact

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"labswarm/api"
	"labswarm/api/order"
)

// Enrol opens the boot session.
func (c *Client) Enrol(ctx context.Context, req api.EnrolRequest) (api.EnrolReply, error) {
	req.BootID, req.Nonce = c.BootID, c.Nonce
	var rep api.EnrolReply
	_, _, err := c.do(ctx, http.MethodPost, api.RouteEnrol, req, &rep)
	return rep, err
}

// Order asks for the order of this session; nil when there is none yet, with
// the time after which to ask again.
func (c *Client) Order(ctx context.Context) (*order.Envelope, time.Duration, error) {
	var raw json.RawMessage
	status, header, err := c.do(ctx, http.MethodGet, api.RouteOrder, nil, &raw)
	if err != nil {
		return nil, 0, err
	}
	if status != http.StatusOK {
		wait, err := strconv.Atoi(header.Get("Retry-After"))
		if err != nil || wait < 1 || wait > 60 {
			wait = 2
		}
		return nil, time.Duration(wait) * time.Second, nil
	}
	env, err := order.ParseEnvelope(raw)
	return env, 0, err
}

// File fetches one file of the ordered image, of at most limit bytes.
func (c *Client) File(ctx context.Context, name string, limit int64) ([]byte, error) {
	f := &file{limit: limit}
	if _, _, err := c.do(ctx, http.MethodGet, api.RouteImage+name, nil, f); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	return f.data, nil
}

// Commence asks for the point of no return. A refusal is an *api.Problem with
// CodeNotNow or CodeStaleFence.
func (c *Client) Commence(ctx context.Context, req api.CommenceRequest) (*order.Envelope, error) {
	req.BootID = c.BootID
	var raw json.RawMessage
	if _, _, err := c.do(ctx, http.MethodPost, api.RouteCommence, req, &raw); err != nil {
		return nil, err
	}
	return order.ParseEnvelope(raw)
}

// Progress reports and returns what the server wants.
func (c *Client) Progress(ctx context.Context, p api.Progress) (api.ProgressReply, error) {
	p.BootID = c.BootID
	var rep api.ProgressReply
	_, _, err := c.do(ctx, http.MethodPost, api.RouteProgress, p, &rep)
	return rep, err
}

// Result reports the end.
func (c *Client) Result(ctx context.Context, r api.Result) (api.ResultAck, error) {
	r.BootID = c.BootID
	var ack api.ResultAck
	_, _, err := c.do(ctx, http.MethodPost, api.RouteResult, r, &ack)
	return ack, err
}

// CaptureState asks how far the capture of this session is.
func (c *Client) CaptureState(ctx context.Context) (api.CaptureState, error) {
	var st api.CaptureState
	_, _, err := c.do(ctx, http.MethodGet, api.RouteCapture, nil, &st)
	return st, err
}

// CaptureBase fetches the hashes of the base's cells, 32 bytes for each of n.
func (c *Client) CaptureBase(ctx context.Context, n int) ([]byte, error) {
	f := &file{limit: 32 * int64(n)}
	if _, _, err := c.do(ctx, http.MethodGet, api.RouteCaptureBase, nil, f); err != nil {
		return nil, fmt.Errorf("fetch the base's hashes: %w", err)
	}
	return f.data, nil
}

// CaptureDraft tells the server what is to come.
func (c *Client) CaptureDraft(ctx context.Context, d api.CaptureDraft) (api.CaptureState, error) {
	d.BootID = c.BootID
	var st api.CaptureState
	_, _, err := c.do(ctx, http.MethodPost, api.RouteCapture, d, &st)
	return st, err
}

// CaptureFinish says that all cells were sent.
func (c *Client) CaptureFinish(ctx context.Context) (api.CaptureState, error) {
	var st api.CaptureState
	_, _, err := c.do(ctx, http.MethodPost, api.RouteCaptureFinish, struct{}{}, &st)
	return st, err
}

// Log sends the last log lines.
func (c *Client) Log(ctx context.Context, text string) error {
	const limit = 100 << 10 // the server takes bodies of 128 KiB, JSON escapes included
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	_, _, err := c.do(ctx, http.MethodPost, api.RouteLog, api.LogRequest{BootID: c.BootID, Text: text}, nil)
	return err
}
