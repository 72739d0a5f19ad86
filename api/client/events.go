package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"labswarm/api"
)

// maxLine bounds one line of an event stream, in bytes: a tick of 500 hosts is
// about 300 KiB.
const maxLine = 8 << 20

// Latest asks for events from now on only: the log can hold a million older
// ones.
const Latest = ^uint64(0)

// Recent asks for the newest few hundred events first.
const Recent = Latest - 1

// silence is how long a stream may be quiet: the server sends a comment every
// 15 s.
const silence = 40 * time.Second

// errSilent ends a stream whose server has stopped talking.
var errSilent = fmt.Errorf("the server has said nothing for %s", silence)

// Events reads one event stream until it breaks or ctx ends; it always returns
// an error. Log events after sequence number since come first, none with
// Latest, the newest with Recent. Either function may be nil; both are called on this goroutine.
func (c *Client) Events(ctx context.Context, since uint64, onLog func(api.Event), onTick func(api.Tick)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	path := api.RouteAdminEv
	switch since {
	case Latest:
	case Recent:
		path += "?last=300"
	default:
		path += "?since=" + strconv.FormatUint(since, 10)
	}
	res, err := c.send(ctx, c.stream, http.MethodGet, path, nil, "", "")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // the stream is over
	if res.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // best effort: the status says enough
		return problem(res, raw)
	}
	watchdog := time.AfterFunc(silence, func() { cancel(c.away(errSilent)) })
	defer watchdog.Stop()
	broken, err := readEvents(res.Body, func() { watchdog.Reset(silence) }, onLog, onTick)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case broken:
		return c.away(err)
	}
	return err
}

// readEvents reads server-sent events (WHATWG HTML, 9.2) from r to its end and
// calls alive for every line. broken tells that the stream ended, and not that
// its content is wrong; err is never nil.
func readEvents(r io.Reader, alive func(), onLog func(api.Event), onTick func(api.Tick)) (broken bool, err error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	var kind string
	var data []byte
	for sc.Scan() {
		alive()
		line := sc.Bytes()
		switch {
		case len(line) == 0:
			if err := dispatch(kind, data, onLog, onTick); err != nil {
				return false, err
			}
			kind, data = "", nil
		case bytes.HasPrefix(line, []byte("event:")):
			kind = string(bytes.TrimSpace(line[6:]))
		case bytes.HasPrefix(line, []byte("data:")):
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(line[5:], []byte(" "))...)
			if len(data) > maxLine {
				return false, errors.New("read events: an event is too long")
			}
		}
	}
	switch err := sc.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return false, errors.New("read events: an event is too long")
	case err != nil:
		return true, err
	}
	return true, io.ErrUnexpectedEOF
}

// dispatch hands one event on. Kinds this client does not know are passed over.
func dispatch(kind string, data []byte, onLog func(api.Event), onTick func(api.Tick)) error {
	switch {
	case kind == "log" && onLog != nil:
		var e api.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read log event: %w", err)
		}
		onLog(e)
	case kind == "tick" && onTick != nil:
		var t api.Tick
		if err := json.Unmarshal(data, &t); err != nil {
			return fmt.Errorf("read tick: %w", err)
		}
		onTick(t)
	case kind == "lagged":
		return errors.New("read events: this reader was too slow and was cut off")
	}
	return nil
}

// final reports whether waiting does not help: a wrong key, or a token that was
// revoked.
func final(err error) bool {
	var wrong *WrongKeyError
	var p *api.Problem
	return errors.As(err, &wrong) || (errors.As(err, &p) && (p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden))
}

// Follow keeps a stream open: it reconnects with a pause of 0.5 to 10 s and
// goes on after the last log event seen. onLost, which may be nil, hears why a
// stream ended. It returns when ctx ends, or when the server refuses the caller.
func (c *Client) Follow(ctx context.Context, since uint64, onLog func(api.Event), onTick func(api.Tick), onLost func(error)) error {
	pause := 500 * time.Millisecond
	for {
		err := c.Events(ctx, since, func(e api.Event) {
			if since >= Recent || e.Seq > since {
				since = e.Seq
			}
			pause = 500 * time.Millisecond
			if onLog != nil {
				onLog(e)
			}
		}, func(t api.Tick) {
			pause = 500 * time.Millisecond
			if onTick != nil {
				onTick(t)
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if onLost != nil {
			onLost(err)
		}
		if final(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 10*time.Second)
	}
}
