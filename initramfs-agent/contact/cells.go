package contact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"labswarm/api"
)

// sendStall is how long the network may take nothing of an upload before it counts as cut: TCP alone would try for a
// quarter of an hour.
const sendStall = 30 * time.Second

// CaptureCells sends a stream of cells and returns how far the server is.
func (c *Client) CaptureCells(ctx context.Context, cells io.Reader) (st api.CaptureState, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(sendStall, func() { cancel(errStalled) })
	defer watch.Stop()
	body := &watched{r: cells, watch: watch}
	defer body.end()
	// A body of unknown type is streamed in chunks, and sent once: it cannot be begun anew.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+api.RouteCaptureCells, body)
	if err != nil {
		return st, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.stream.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		}
		return st, fmt.Errorf("send cells: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	raw, err := readLimited(resp.Body, maxAnswer)
	if err != nil {
		return st, fmt.Errorf("send cells: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("send cells: %w", problem(resp.StatusCode, raw))
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return st, fmt.Errorf("send cells: answer: %w", err)
	}
	return st, nil
}

var errStalled = fmt.Errorf("the network took nothing for %s", sendStall)

// watched runs the timer while nobody asks for more: then the network is what is waited for, and not the disk.
type watched struct {
	watch *time.Timer
	mu    sync.Mutex
	r     io.Reader // nil = the upload is over: net/http may still be reading when it has an answer
}

func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.r = nil
}

func (w *watched) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.r == nil {
		return 0, io.ErrClosedPipe
	}
	w.watch.Stop()
	n, err := w.r.Read(p)
	w.watch.Reset(sendStall)
	return n, err
}
