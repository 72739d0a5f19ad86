package feed

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/snapshot"
	"labswarm/tui/tuitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pictures keeps the newest picture and wakes who waits for one.
type pictures struct {
	mu   sync.Mutex
	last *snapshot.Snapshot
	n    int
	more chan struct{}
}

func (p *pictures) put(s *snapshot.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.n = s, p.n+1
	close(p.more)
	p.more = make(chan struct{})
}

// await returns the first picture that is as wanted.
func (p *pictures) await(t *testing.T, what string, ok func(*snapshot.Snapshot) bool) *snapshot.Snapshot {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		s, more := p.last, p.more
		p.mu.Unlock()
		if s != nil && ok(s) {
			return s
		}
		select {
		case <-more:
		case <-limit:
			t.Fatalf("no picture of: %s; the last one: %+v", what, s)
		}
	}
}

func start(t *testing.T, src Source) (*Feed, *pictures) {
	t.Helper()
	p := &pictures{more: make(chan struct{})}
	f := New(src, p.put)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f, p
}

func connect(t *testing.T, s *tuitest.Server) *client.Client {
	t.Helper()
	c := client.New(s.Socket)
	t.Cleanup(c.Close)
	return c
}

func percent(n float64) func(*snapshot.Snapshot) bool {
	return func(s *snapshot.Snapshot) bool {
		return s.Link == snapshot.Live && len(s.Rooms) > 0 && s.Rooms[0].Job != nil && s.Rooms[0].Job.Percent == n
	}
}

// TestReconnect: the server goes away, what changed meanwhile is seen after it
// is back, and what changes later too.
func TestReconnect(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(3))
	_, p := start(t, connect(t, srv))
	s := p.await(t, "the first state", percent(61.4))
	if s.Server.Name != "lab1" || s.Hosts != 3 || !s.Full {
		t.Errorf("first picture: %+v", s)
	}
	srv.Change(func(f *snapshot.Facts) { f.Jobs[0].Percent = 70 })
	p.await(t, "a tick", percent(70))

	srv.Stop()
	s = p.await(t, "the loss", func(s *snapshot.Snapshot) bool { return s.Link == snapshot.Lost })
	if s.Hosts != 3 || s.Cause == "" || s.Rooms[0].Job.Percent != 70 {
		t.Errorf("after the loss the old picture stays, with the cause: %+v", s)
	}
	srv.Change(func(f *snapshot.Facts) {
		f.Jobs[0].Percent = 80
		f.Hosts = append(f.Hosts, api.Host{Name: "a99", Room: "A101"})
	})
	srv.Start()
	s = p.await(t, "the state after the reconnection", percent(80))
	if s.Hosts != 4 {
		t.Errorf("the host added meanwhile is missing: %d hosts", s.Hosts)
	}
	srv.Change(func(f *snapshot.Facts) { f.Jobs[0].Percent = 90 })
	p.await(t, "a tick after the reconnection", percent(90))
}

// TestServerComesLater: the console may be opened first.
func TestServerComesLater(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(1))
	srv.Stop()
	f, p := start(t, connect(t, srv))
	if s := p.await(t, "the loss", func(s *snapshot.Snapshot) bool { return s.Link == snapshot.Lost }); s.Full || s.Cause == "" {
		t.Errorf("picture without a server: %+v", s)
	}
	srv.Start()
	f.Refresh()
	p.await(t, "the first state", percent(61.4))
}

// TestLogEventReadsAgain: ticks hold jobs only; a new host is seen because the
// log speaks of it.
func TestLogEventReadsAgain(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(1))
	_, p := start(t, connect(t, srv))
	p.await(t, "the first state", percent(61.4))
	srv.Change(func(f *snapshot.Facts) { f.Hosts = append(f.Hosts, api.Host{Name: "new", Room: "A101"}) })
	srv.Log("host_saved")
	p.await(t, "the new host", func(s *snapshot.Snapshot) bool { return s.Hosts == 2 })
}

// TestRefresh reads everything again on demand, also while connected.
func TestRefresh(t *testing.T) {
	srv := tuitest.NewServer(t, tuitest.Facts(1))
	f, p := start(t, connect(t, srv))
	p.await(t, "the first state", percent(61.4))
	srv.Change(func(f *snapshot.Facts) { f.Hosts = append(f.Hosts, api.Host{Name: "new", Room: "A101"}) })
	f.Refresh()
	s := p.await(t, "the new host", func(s *snapshot.Snapshot) bool { return s.Hosts == 2 })
	if s.Link != snapshot.Live {
		t.Errorf("a refresh looks like a loss: %+v", s)
	}
}

// scripted is a source in virtual time: a real server cannot live in a
// synctest bubble, its sockets block for good.
type scripted struct {
	mu     sync.Mutex
	calls  []time.Time // of Server: the beginnings of connections
	dead   bool
	every  time.Duration // between ticks
	change bool          // every tick brings news
}

func (s *scripted) Server(context.Context) (api.ServerInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, time.Now())
	if s.dead {
		return api.ServerInfo{}, errors.New("connection refused")
	}
	return api.ServerInfo{Name: "x"}, nil
}
func (s *scripted) Rooms(context.Context) ([]api.Room, error) { return nil, nil }
func (s *scripted) Hosts(context.Context) ([]api.Host, error) {
	return []api.Host{{Name: "a", Room: "R"}}, nil
}
func (s *scripted) Jobs(context.Context) ([]api.Job, error) {
	return []api.Job{{ID: 1, Slots: []api.Slot{{Host: "a"}}}}, nil
}
func (s *scripted) Events(ctx context.Context, _ uint64, _ func(api.Event), onTick func(api.Tick)) error {
	for n := 0; ; n++ {
		j := api.Job{ID: 1, Slots: []api.Slot{{Host: "a"}}}
		if s.change {
			j.SeedSent = int64(n)
		}
		onTick(api.Tick{Jobs: []api.Job{j}})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.every):
		}
	}
}

// TestAtMostFourPicturesASecond: a server that ticks a hundred times a second
// does not drown the terminal, and the last tick is always shown.
func TestAtMostFourPicturesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := start(t, &scripted{every: 10 * time.Millisecond, change: true})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.n > 42 || p.n < 38 {
			t.Errorf("%d pictures in 10 s, want 40", p.n)
		}
	})
}

// TestQuietPicturesShareTheirRooms: ticks without news cost no joining, and
// the console sees that nothing changed.
func TestQuietPicturesShareTheirRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := start(t, &scripted{every: 2 * time.Second})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		p.mu.Lock()
		first := p.last
		p.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.last == first || !p.last.SameAs(first) || !p.last.Heard.After(first.Heard) {
			t.Errorf("two quiet pictures: %+v and %+v", first, p.last)
		}
	})
}

// TestBackoff: the pause before a new connection doubles from 0.5 s to 10 s.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &scripted{dead: true}
		start(t, src)
		time.Sleep(time.Minute)
		synctest.Wait()
		src.mu.Lock()
		defer src.mu.Unlock()
		want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}
		if len(src.calls) <= len(want) {
			t.Fatalf("%d connections in a minute, want more than %d", len(src.calls), len(want))
		}
		for i, w := range want {
			if got := src.calls[i+1].Sub(src.calls[i]); got != w {
				t.Errorf("pause %d is %s, want %s", i+1, got, w)
			}
		}
	})
}

// TestTickFoldsJobs: known jobs are replaced in place, new ones come first.
func TestTickFoldsJobs(t *testing.T) {
	f := New(nil, nil)
	f.facts.Jobs = []api.Job{{ID: 5}, {ID: 3}}
	f.tick(api.Tick{Jobs: []api.Job{{ID: 8}, {ID: 7}, {ID: 5, Percent: 9}}})
	var got []uint64
	for _, j := range f.facts.Jobs {
		got = append(got, j.ID)
	}
	if len(got) != 4 || got[0] != 8 || got[1] != 7 || got[2] != 5 || got[3] != 3 || f.facts.Jobs[2].Percent != 9 {
		t.Errorf("jobs after the tick: %+v", f.facts.Jobs)
	}
}
