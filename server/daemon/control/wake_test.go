package control

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labswarm/api"
	"labswarm/server/decide"
	"labswarm/server/netboot"
	"labswarm/server/power"
	"labswarm/server/store"
)

// noted is a Waker that keeps what it should send; power.Sender has its own test.
type noted struct {
	mu   sync.Mutex
	sent []string
	last power.Room
}

func (n *noted) Wake(_ context.Context, targets []power.Target) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range targets {
		n.last = t.Room
		n.sent = append(n.sent, fmt.Sprintf("%s %d", t.Host, len(t.MACs)))
	}
	return nil
}

func (n *noted) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.sent, ", ")
}

func TestJobWakesItsHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		b.room(3)
		if _, err := b.PlanJob(t.Context(), &api.JobCreate{Image: "deb", Room: "r1", JobPolicy: api.JobPolicy{Wake: true}}); err == nil {
			t.Error("a server that cannot wake promises to")
		}
		n := &noted{}
		b.end()
		b.wol = n
		b.start()
		defer b.end()
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 3600, JobPolicy: api.JobPolicy{Wake: true}})
		time.Sleep(3 * time.Second)
		b.wants("MMM")
		if got := n.all(); got != "a1 1, a2 1, a3 1" {
			t.Fatalf("woken: %s", got)
		}
		if a := b.boot(0); a != decide.Agent { // proof of wake
			t.Errorf("a woken host boots %s", a)
		}
		b.Sighting(netboot.Sighting{Kind: netboot.SightOS, MAC: "52:54:00:00:00:02"}) // it starts its own system
		time.Sleep(2 * time.Second)
		b.wants("BAM")
		time.Sleep(4 * time.Minute)
		if got := n.all(); got != "a1 1, a2 1, a3 1" {
			t.Fatalf("woken within 5 minutes: %s", got)
		}
		time.Sleep(12 * time.Minute)
		if got := n.all(); got != "a1 1, a2 1, a3 1, a3 1, a3 1" {
			t.Errorf("woken in three rounds: %s", got)
		}
		b.wants("AAA")
		time.Sleep(time.Hour)
		b.wants("NNN")
		if s := b.slot(2); !strings.Contains(s.Error, "not woken by 3 rounds") {
			t.Errorf("a3 ended with %q", s.Error)
		}
	})
}

// TestWakeAsTheRoomSays: pace and broadcast are the room's, and a room that is
// switched on by hand is left alone.
func TestWakeAsTheRoomSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		b.room(2)
		n := &noted{}
		b.end()
		b.wol = n
		b.start()
		defer b.end()
		set := func(r api.Room) {
			t.Helper()
			if _, err := b.PutRoom(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct {
			room api.Room
			want power.Room
		}{
			{api.Room{Name: "r1"}, power.Room{}},
			{api.Room{Name: "r1", Subnets: []string{"10.7.0.0/24", "10.8.0.0/16"}}, power.Room{Casts: []netip.Addr{netip.MustParseAddr("10.7.0.255"), netip.MustParseAddr("10.8.255.255")}}},
			{api.Room{Name: "r1", Subnets: []string{"10.7.0.0/24"}, Wake: &api.Wake{Broadcast: "10.7.255.255", Wave: 5, PauseS: 60}},
				power.Room{Wave: 5, Pause: time.Minute, Casts: []netip.Addr{netip.MustParseAddr("10.7.255.255")}}},
		} {
			set(tt.room)
			if _, err := b.WakeHosts(t.Context(), &api.WakeRequest{Room: "R1"}, "eva"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			tt.want.Name = "r1"
			if !reflect.DeepEqual(n.last, tt.want) {
				t.Errorf("%+v is woken as %+v; want %+v", tt.room, n.last, tt.want)
			}
		}
		set(api.Room{Name: "r1", Wake: &api.Wake{Off: true}})
		sent := n.all()
		if _, err := b.WakeHosts(t.Context(), &api.WakeRequest{Room: "r1"}, "eva"); err == nil {
			t.Error("woke a room that is switched on by hand")
		}
		b.create(api.JobCreate{Image: "deb", Room: "r1", Confirm: "r1", ExpiresInS: 3600, JobPolicy: api.JobPolicy{Wake: true}})
		time.Sleep(10 * time.Minute)
		b.wants("AA")
		if n.all() != sent {
			t.Errorf("woken all the same: %s", n.all())
		}
	})
}

func TestWakeByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		b.end()
		n := &noted{}
		b.room(2)
		if _, err := b.WakeHosts(t.Context(), &api.WakeRequest{Room: "r1"}, "eva"); err == nil {
			t.Error("woken by a server that cannot")
		}
		b.cfg.Waker = n
		r, err := b.WakeHosts(t.Context(), &api.WakeRequest{Hosts: []string{"A2"}}, "eva")
		if err != nil || r.Hosts != 1 {
			t.Errorf("wake = %+v, %v", r, err)
		}
		for range wakeQueue { // nobody sends: the queue is bounded
			_, err = b.WakeHosts(t.Context(), &api.WakeRequest{Room: "r1"}, "eva")
		}
		if err == nil {
			t.Error("the queue has no end")
		}
		if _, err := b.WakeHosts(t.Context(), &api.WakeRequest{Hosts: []string{"zz"}}, "eva"); err == nil {
			t.Error("an unknown host was woken")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go b.waker(ctx)
		synctest.Wait()
		cancel()
		synctest.Wait()
		if got := n.all(); !strings.HasPrefix(got, "a2 1, a1 1, a2 1") {
			t.Errorf("woken: %s", got)
		}
	})
}
