package tuitest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/tui/snapshot"
)

// Server speaks the admin API on a unix socket, with facts that the test sets.
// It can be stopped and started again on the same socket.
type Server struct {
	Socket string

	Created []api.JobCreate // jobs that were asked for; read it when nothing runs
	Asked   []Asked         // what else was asked for; read it when nothing runs
	Stale   bool            // every plan is out of date; set it when nothing runs

	t     testing.TB
	mu    sync.Mutex
	did   []string // actions on images
	facts snapshot.Facts
	log   []api.Event
	gets  map[string]int // requests by path
	http  *httptest.Server
}

// NewServer starts a server with facts.
func NewServer(t testing.TB, f snapshot.Facts) *Server {
	t.Helper()
	return NewServerAt(t, f, "s.sock")
}

// NewServerAt names the socket, which lies in a folder of its own.
func NewServerAt(t testing.TB, f snapshot.Facts, name string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "tui") //nolint:usetesting // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Socket: filepath.Join(dir, name), t: t, facts: f, gets: map[string]int{}}
	t.Cleanup(func() {
		s.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the socket's folder: %v", err)
		}
	})
	s.Start()
	return s
}

// Start listens on the socket.
func (s *Server) Start() {
	s.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(s.t.Context(), "unix", s.Socket)
	if err != nil {
		s.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	srv.Listener = l
	srv.Start()
	s.mu.Lock()
	s.http = srv
	s.mu.Unlock()
}

// Stop breaks all connections and stops listening.
func (s *Server) Stop() {
	s.mu.Lock()
	srv := s.http
	s.http = nil
	s.mu.Unlock()
	if srv != nil {
		srv.CloseClientConnections()
		srv.Close()
	}
}

// Change changes the facts; running event streams see new jobs at once.
func (s *Server) Change(f func(*snapshot.Facts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.Jobs = append([]api.Job(nil), s.facts.Jobs...)
	f(&s.facts)
}

// Log appends to the event log.
func (s *Server) Log(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, api.Event{Seq: uint64(len(s.log) + 1), Level: "info", Code: code})
}

// Gets counts the requests for a path.
func (s *Server) Gets(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets[path]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.gets[r.URL.Path]++
	f := s.facts
	s.mu.Unlock()
	switch path := r.URL.Path; {
	case s.care(w, r, f):
	case path == api.RouteServer:
		answer(w, f.Server)
	case path == api.RouteRooms:
		answer(w, f.Rooms)
	case path == api.RouteHosts:
		answer(w, f.Hosts)
	case path == api.RouteJobs && r.Method == http.MethodPost:
		s.create(w, r)
	case path == api.RouteJobs:
		answer(w, f.Jobs)
	case path == api.RoutePlans:
		s.plan(w, r, f)
	case path == api.RouteImages:
		answer(w, Images())
	case path == api.RouteImageStates:
		answer(w, s.states())
	case path == api.RouteImagePin, path == api.RouteImageRemove, strings.HasSuffix(path, "/capture"):
		s.imageAction(w, r)
	case path == api.RouteDoctor:
		answer(w, Checkup())
	case path == api.RouteReports:
		answer(w, Reports())
	case strings.HasPrefix(path, api.RouteReports+"/"):
		report(w, r)
	case strings.HasSuffix(path, "/cancel"):
		s.Change(func(f *snapshot.Facts) { f.Jobs[0].Ended, f.Jobs[0].Result = time.Now(), "cancelled" })
		answer(w, api.Job{})
	case path == api.RouteAdminEv:
		s.stream(w, r)
	case strings.HasPrefix(path, api.RouteJobs+"/"):
		s.job(w, f, strings.TrimPrefix(path, api.RouteJobs+"/"))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// job answers with the timelines, as the server does.
func (s *Server) job(w http.ResponseWriter, f snapshot.Facts, id string) {
	for _, j := range f.Jobs {
		if strconv.FormatUint(j.ID, 10) != id {
			continue
		}
		j.Slots = append([]api.Slot(nil), j.Slots...)
		for i := range j.Slots {
			j.Slots[i].Timeline = Timeline()
		}
		answer(w, j)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	answer(w, api.Problem{Status: 404, Title: "Not Found", Code: api.CodeNotFound, Detail: "read job " + id + ": there is no such job"})
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	since := uint64(len(s.log)) // without ?since the stream starts now
	s.mu.Unlock()
	if r.URL.Query().Get("last") != "" {
		since -= min(since, 300)
	}
	if text := r.URL.Query().Get("since"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		since = n
	}
	w.Header().Set("Content-Type", "text/event-stream")
	shown := ""
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for beat := 0; ; beat++ {
		s.mu.Lock()
		jobs, log := s.facts.Jobs, s.log
		s.mu.Unlock()
		for _, e := range log {
			if e.Seq > since {
				since = e.Seq
				send(w, "log", e)
			}
		}
		raw, err := json.Marshal(jobs)
		if err != nil {
			return
		}
		if string(raw) != shown || beat%50 == 0 {
			shown = string(raw)
			send(w, "tick", api.Tick{Time: time.Now(), Jobs: jobs})
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func send(w http.ResponseWriter, kind string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, raw) // the client may be gone
}

func answer(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// Timeline is the timeline of a host that failed while writing.
func Timeline() []api.TimelineEntry {
	at := func(s float64) time.Time { return Now().Add(-5*time.Minute + time.Duration(s*float64(time.Second))) }
	return []api.TimelineEntry{
		{At: at(0), Event: "ARMED order signed, attempt 1 of 3"}, {At: at(32.6), Event: "BOOTING DHCP asked, shimx64.efi offered"},
		{At: at(44.4), Event: "ENROLLED agent up, secure boot on"}, {At: at(45), Event: "CHECKING disk S5Y1NX04 250 GB matches, signature ok"},
		{At: at(60.8), Event: "COMMENCE committed: the old content is given up from here"}, {At: at(60.9), Event: "WRITING from a09, else a05 a17"},
		{At: at(273.9), Event: "FAILED DW write cell 18743 at 18.3 GiB: input/output error"},
	}
}
