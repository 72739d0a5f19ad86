package contact

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"labswarm/api"
)

const (
	maxEvent = 64 << 10         // bytes of one event
	silence  = 45 * time.Second // the server sends a comment every 15 s
)

// Events reads the server's event stream and hands each event to f until the
// stream breaks or ctx ends. The error is never nil.
func (c *Client) Events(ctx context.Context, f func(api.AgentEvent)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+api.RouteEvents, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.stream.Do(req)
	if err != nil {
		return fmt.Errorf("open event stream: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		raw, rerr := readLimited(resp.Body, maxAnswer)
		return errors.Join(fmt.Errorf("open event stream: %w", problem(resp.StatusCode, raw)), rerr)
	}
	// A dead server sends nothing at all; the timer turns that into an error.
	watch := time.AfterFunc(silence, cancel)
	defer watch.Stop()
	return parseEvents(resp.Body, func() { watch.Reset(silence) }, f)
}

// parseEvents reads server-sent events whose data is an api.AgentEvent. Events
// it does not understand are skipped: a newer server may send more kinds.
func parseEvents(r io.Reader, alive func(), f func(api.AgentEvent)) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxEvent)
	var data strings.Builder
	for sc.Scan() {
		alive()
		line := sc.Text()
		switch {
		case line == "":
			var ev api.AgentEvent
			if data.Len() > 0 && json.Unmarshal([]byte(data.String()), &ev) == nil {
				f(ev)
			}
			data.Reset()
		case strings.HasPrefix(line, "data:"):
			if data.Len()+len(line) > maxEvent {
				return fmt.Errorf("event is longer than %d bytes", maxEvent)
			}
			data.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "data:"), " "))
			data.WriteByte('\n')
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read event stream: %w", err)
	}
	return io.ErrUnexpectedEOF
}
