package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
)

func TestReadEvents(t *testing.T) {
	for _, tt := range []struct {
		name, stream string
		log          []uint64
		ticks        int
		wantErr      string
		broken       bool
	}{
		{"both kinds", "id: 4\nevent: log\ndata: {\"seq\":4}\n\nevent: tick\ndata: {\"jobs\":[]}\n\n", []uint64{4}, 1, "EOF", true},
		{"comments and unknown kinds", ": alive\n\nevent: news\ndata: x\n\nevent: log\ndata: {\"seq\":5}\n\n", []uint64{5}, 0, "EOF", true},
		{"no blank after the colon", "event:log\ndata:{\"seq\":6}\n\n", []uint64{6}, 0, "EOF", true},
		{"data in two lines", "event: log\ndata: {\"seq\":\ndata: 7}\n\n", []uint64{7}, 0, "EOF", true},
		{"CRLF", "event: log\r\ndata: {\"seq\":8}\r\n\r\n", []uint64{8}, 0, "EOF", true},
		{"cut in an event", "event: log\ndata: {\"seq\":9}\n", nil, 0, "EOF", true},
		{"lagged", "event: lagged\ndata: {}\n\nevent: log\ndata: {\"seq\":9}\n\n", nil, 0, "too slow", false},
		{"bad JSON", "event: log\ndata: {\n\n", nil, 0, "read log event", false},
		{"line too long", "data: " + strings.Repeat("x", maxLine) + "\n\n", nil, 0, "too long", false},
		{"event too long", strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", maxLine>>20+1) + "\n", nil, 0, "too long", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log []uint64
			ticks := 0
			broken, err := readEvents(strings.NewReader(tt.stream), func() {}, func(e api.Event) { log = append(log, e.Seq) }, func(api.Tick) { ticks++ })
			if diff := cmp.Diff(tt.log, log); diff != "" || ticks != tt.ticks {
				t.Errorf("%d ticks, want %d; log events (-want +got):\n%s", ticks, tt.ticks, diff)
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) || broken != tt.broken {
				t.Errorf("error = %v, broken %v; want %q, %v", err, broken, tt.wantErr, tt.broken)
			}
		})
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("event: log\ndata: {\"seq\":4}\n\nevent: tick\ndata: {\"jobs\":[{\"id\":1}]}\n\n: alive\n\n")
	f.Add("data: a\ndata: b\n\nevent: lagged\n\n")
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := readEvents(strings.NewReader(in), func() {}, func(api.Event) {}, func(api.Tick) {}); err == nil {
			t.Error("the stream ended without an error")
		}
	})
}

// streamer serves event streams; each connection gets the next script and is
// then cut.
func streamer(t *testing.T, asked chan<- string, scripts ...string) http.Handler {
	var n atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := int(n.Add(1)) - 1
		asked <- r.URL.RequestURI()
		if i >= len(scripts) {
			<-r.Context().Done()
			return
		}
		if scripts[i] == "refuse" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"status":503,"code":"not_now","detail":"starting"}`)
			return
		}
		if _, err := io.WriteString(w, scripts[i]); err != nil {
			t.Error(err)
		}
	})
}

func logEvent(n int) string { return fmt.Sprintf("id: %d\nevent: log\ndata: {\"seq\":%d}\n\n", n, n) }

// TestFollowResumes: after a broken connection and a refusal the stream goes
// on after the last event seen, and nothing is lost or told twice.
func TestFollowResumes(t *testing.T) {
	asked := make(chan string, 8)
	c := serve(t, streamer(t, asked, logEvent(3)+logEvent(4), "refuse", logEvent(5)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log []uint64
	var lost []error
	err := c.Follow(ctx, 2, func(e api.Event) {
		log = append(log, e.Seq)
		if e.Seq == 5 {
			cancel()
		}
	}, nil, func(err error) { lost = append(lost, err) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Follow = %v; want the end of the context", err)
	}
	if diff := cmp.Diff([]uint64{3, 4, 5}, log); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, want := range []string{"/v1/events?since=2", "/v1/events?since=4", "/v1/events?since=4"} {
		if got := <-asked; got != want {
			t.Errorf("asked %s; want %s", got, want)
		}
	}
	var away *UnreachableError
	var p *api.Problem
	if len(lost) != 2 || !errors.As(lost[0], &away) || !errors.As(lost[1], &p) || p.Code != api.CodeNotNow {
		t.Errorf("reasons of the pauses: %v; want a broken stream, then the server's refusal", lost)
	}
}

// TestFollowLatest: without a number the old log is not asked for; once an
// event was seen, the next connection asks from there.
func TestFollowLatest(t *testing.T) {
	asked := make(chan string, 8)
	c := serve(t, streamer(t, asked, "event: tick\ndata: {\"jobs\":[]}\n\n"+logEvent(40), logEvent(41)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ticks := 0
	err := c.Follow(ctx, Latest, func(e api.Event) {
		if e.Seq == 41 {
			cancel()
		}
	}, func(api.Tick) { ticks++ }, nil)
	if !errors.Is(err, context.Canceled) || ticks != 1 {
		t.Errorf("Follow = %v after %d ticks; want the end of the context after 1", err, ticks)
	}
	for _, want := range []string{"/v1/events", "/v1/events?since=40"} {
		if got := <-asked; got != want {
			t.Errorf("asked %s; want %s", got, want)
		}
	}
}
