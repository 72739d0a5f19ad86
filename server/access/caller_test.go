package access

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

func TestTokens(t *testing.T) {
	s := store.NewMem()
	b := open(t, s)
	for name, bad := range map[string]api.TokenAdd{
		"no name": {Role: "viewer"}, "no role": {Name: "n"}, "role": {Name: "n", Role: "king"}, "escape": {Name: "n\x1b[31m", Role: "viewer"},
		"rooms of an admin": {Name: "n", Role: "admin", Rooms: []string{"A1"}}, "empty room": {Name: "n", Role: "operator", Rooms: []string{""}},
		"past": {Name: "n", Role: "viewer", ExpiresS: -1}, "for ever and a day": {Name: "n", Role: "viewer", ExpiresS: 1 << 60},
	} {
		if _, err := b.AddToken(t.Context(), &bad); code(err) != api.CodeUsage {
			t.Errorf("%s = %v; want a refusal", name, err)
		}
	}
	made, err := b.AddToken(t.Context(), &api.TokenAdd{Name: "night watch", Role: "operator", Rooms: []string{"A1"}, ExpiresS: 3600})
	if err != nil || !strings.HasPrefix(made.Secret, "lsw_") || len(made.Secret) != 4+43 {
		t.Fatalf("made %+v, %v", made, err)
	}
	now := time.Now()
	b.now = func() time.Time { return now }
	c, err := b.Bearer(t.Context(), "Bearer "+made.Secret, "10.0.0.7:1")
	if err != nil || c.Role != api.RoleOperator || !slices.Equal(c.Rooms, []string{"A1"}) || c.Who != "token t1 (night watch)" || c.Socket {
		t.Errorf("caller %+v, %v", c, err)
	}
	if list, err := b.Tokens(t.Context()); err != nil || len(list) != 1 || list[0].Used.IsZero() {
		t.Errorf("tokens %+v, %v; want the last use", list, err)
	}
	for _, bad := range []string{"", "Bearer ", "Bearer lsw_", made.Secret, "bearer " + made.Secret, "Bearer " + made.Secret + "x", "Bearer " + strings.Repeat("lsw_", 100), "Basic " + made.Secret} {
		if c, err := b.Bearer(t.Context(), bad, "x"); code(err) != api.CodeBadToken || c.Role != api.RoleViewer || c.token != "" {
			t.Errorf("%.20q let in %+v, %v", bad, c, err)
		}
	}
	// Revoked while in use, and while on its way in.
	ctx, done, err := b.Hold(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveToken(t.Context(), "t9"); code(err) != api.CodeNotFound {
		t.Errorf("remove t9 = %v", err)
	}
	if ctx.Err() != nil {
		t.Error("another token's removal ended the request")
	}
	if err := b.RemoveToken(t.Context(), "t1"); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil || !errors.Is(context.Cause(ctx), errRevoked) {
		t.Error("the request goes on with a revoked token")
	}
	done()
	if _, _, err := b.Hold(t.Context(), c); code(err) != api.CodeBadToken || len(b.open) != 0 {
		t.Errorf("hold after the removal = %v, %d held", err, len(b.open))
	}
	if _, err := b.Bearer(t.Context(), "Bearer "+made.Secret, "x"); code(err) != api.CodeBadToken {
		t.Errorf("revoked token = %v", err)
	}
	// Expiry, to the instant; a request that is open ends with it.
	if made, err = b.AddToken(t.Context(), &api.TokenAdd{Name: "n", Role: "viewer", ExpiresS: 60}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(60*time.Second - time.Nanosecond)
	c, err = b.Bearer(t.Context(), "Bearer "+made.Secret, "x")
	if err != nil {
		t.Errorf("a moment before its end = %v", err)
	}
	if ctx, done, err = b.Hold(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	done()
	now = now.Add(time.Nanosecond)
	if _, err := b.Bearer(t.Context(), "Bearer "+made.Secret, "x"); code(err) != api.CodeBadToken {
		t.Errorf("at its end = %v", err)
	}
}

func TestPeerRoles(t *testing.T) {
	p := Peers{Groups: map[uint32]api.Role{10: api.RoleViewer, 20: api.RoleOperator, 30: api.RoleAdmin}}
	for _, tt := range []struct {
		uid  uint32
		gids []uint32
		want api.Role
		ok   bool
	}{
		{0, nil, api.RoleAdmin, true},
		{500, nil, api.RoleAdmin, true}, // the server's own
		{1000, nil, 0, false},
		{1000, []uint32{1, 2}, 0, false},
		{1000, []uint32{1, 10}, api.RoleViewer, true},
		{1000, []uint32{20, 10}, api.RoleOperator, true},
		{1000, []uint32{10, 20}, api.RoleOperator, true},
		{1000, []uint32{30, 10}, api.RoleAdmin, true},
	} {
		if got, ok := p.role(tt.uid, tt.gids, 500); got != tt.want || ok != tt.ok {
			t.Errorf("uid %d in %v = %s, %v; want %s, %v", tt.uid, tt.gids, got, ok, tt.want, tt.ok)
		}
	}
	if _, err := NewPeers(map[string]string{"0": "king"}); err == nil {
		t.Error("role king accepted")
	}
	if _, err := NewPeers(map[string]string{"no-such-group-here": "viewer"}); err == nil {
		t.Error("unknown group accepted")
	}
}

// TestPeerOfASocket asks the kernel: the caller is this process.
func TestPeerOfASocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c, err := Peers{}.Caller(in)
	if err != nil || c.Role != api.RoleAdmin || !c.Socket || !strings.Contains(c.From, "pid") {
		t.Errorf("caller %+v, %v; want this user as admin", c, err)
	}
	raw, err := in.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var gids []uint32
	if cerr := raw.Control(func(fd uintptr) { gids, err = peerGroups(fd) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range own {
		if g != os.Getgid() && !slices.Contains(gids, uint32(g)) {
			t.Errorf("group %d of this process is missing in %v", g, gids)
		}
	}
}

func TestRooms(t *testing.T) {
	limited := Caller{Who: "x", Role: api.RoleOperator, Rooms: []string{"A1", "A2"}}
	for _, tt := range []struct {
		c     Caller
		rooms []string
		ok    bool
	}{
		{limited, []string{"A1"}, true}, {limited, []string{"A1", "A2"}, true}, {limited, []string{"A1", "B1"}, false},
		{limited, nil, false}, {limited, []string{""}, false}, {limited, []string{"a1"}, false},
		{Caller{Role: api.RoleOperator}, nil, true}, {Caller{Role: api.RoleOperator, Rooms: []string{}}, []string{"A1"}, false},
	} {
		if err := tt.c.MayTouch(tt.rooms); (err == nil) != tt.ok {
			t.Errorf("%v touches %v = %v; want %v", tt.c.Rooms, tt.rooms, err, tt.ok)
		}
	}
}

func TestMatch(t *testing.T) {
	b := open(t, store.NewMem())
	tag := ETag(api.Host{Name: "a1"})
	for _, tt := range []struct {
		header, present string
		ok              bool
	}{
		{"", tag, true}, {"", "", true}, {tag, tag, true}, {`"0"`, tag, false}, {`"0", ` + tag, tag, true}, {"*", tag, true}, {"*", "", false}, {tag, "", false},
	} {
		c, _, err := b.Begin(t.Context(), Request{Caller: boss, Method: "PUT", IfMatch: tt.header})
		if err != nil {
			t.Fatal(err)
		}
		err = Match(c.With(t.Context()), tt.present)
		if (err == nil) != tt.ok || (err != nil && code(err) != api.CodePrecondition) {
			t.Errorf("If-Match %q on %q = %v; want %v", tt.header, tt.present, err, tt.ok)
		}
	}
}
