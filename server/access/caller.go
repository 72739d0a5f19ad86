// Package access knows who may call the admin API and what they did: roles of
// the socket's peers, bearer tokens, the audit log, and the answers kept for
// repeated requests. It judges nothing about hosts or jobs. Called by
// server/httpapi before and after each handler, opened by server/daemon; its
// Store records what a call changes.
package access

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"labswarm/api"
)

// Caller is who sends a request.
type Caller struct {
	Who    string // "uid 0 (root)", "token t3 (night watch)"
	From   string // "socket, pid 4711", "10.0.0.7:51334"
	Role   api.Role
	Rooms  []string // that an operator is limited to, nil = all
	Socket bool     // it came over the unix socket

	token string // hash of the token's secret, "" = the socket
}

// MayTouch reports whether the caller's rooms allow to act on these.
func (c Caller) MayTouch(rooms []string) error {
	if c.Rooms == nil || c.Role == api.RoleAdmin {
		return nil
	}
	if len(rooms) == 0 {
		return Refuse("%s may act in %s only, and this touches more than one room", c.Who, strings.Join(c.Rooms, ", "))
	}
	for _, r := range rooms {
		if !slices.Contains(c.Rooms, r) {
			return Refuse("%s may act in %s only, and this touches room %q", c.Who, strings.Join(c.Rooms, ", "), r)
		}
	}
	return nil
}

// Refuse is the answer to a caller who may not.
func Refuse(format string, a ...any) error {
	return &api.Problem{Status: http.StatusForbidden, Title: "not allowed", Code: api.CodeNotAllowed, Detail: fmt.Sprintf(format, a...)}
}

// Peers says what the users of the unix socket may do. Root and the server's
// own user are admins; others have the highest role of their groups.
type Peers struct {
	Groups map[uint32]api.Role // by group id
}

// NewPeers reads GROUP=ROLE pairs; a group is a name or a number.
func NewPeers(roles map[string]string) (Peers, error) {
	p := Peers{Groups: map[uint32]api.Role{}}
	for group, name := range roles {
		role, ok := api.ParseRole(name)
		if !ok {
			return p, fmt.Errorf("role %q of group %s: use viewer, operator or admin", name, group)
		}
		gid, err := GroupID(group)
		if err != nil {
			return p, err
		}
		p.Groups[uint32(gid)] = role
	}
	return p, nil
}

// GroupID finds a group by name or number.
func GroupID(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("find group %s: %w (make it: addgroup --system %s)", name, err, name)
	}
	return strconv.Atoi(g.Gid)
}

// Caller asks the kernel who is at the other end of a unix connection.
func (p Peers) Caller(conn net.Conn) (Caller, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("ask who connects: not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("ask who connects: %w", err)
	}
	var cred *unix.Ucred
	var gids []uint32
	cerr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			gids, err = peerGroups(fd)
		}
	})
	if cerr != nil || err != nil {
		return Caller{}, fmt.Errorf("ask who connects: %w", firstOf(cerr, err))
	}
	c := Caller{Who: userName(cred.Uid), From: fmt.Sprintf("socket, pid %d", cred.Pid), Socket: true}
	role, ok := p.role(cred.Uid, append(gids, cred.Gid), uint32(os.Geteuid()))
	if !ok {
		return c, Refuse("%s has no role on this server: it is in none of the groups of --admin-roles", c.Who)
	}
	c.Role = role
	return c, nil
}

// role is the rule: own is the server's user.
func (p Peers) role(uid uint32, gids []uint32, own uint32) (role api.Role, ok bool) {
	if uid == 0 || uid == own {
		return api.RoleAdmin, true
	}
	for _, g := range gids {
		if r, has := p.Groups[g]; has && (!ok || r > role) {
			role, ok = r, true
		}
	}
	return role, ok
}

// peerGroups are the supplementary groups of the peer when it connected
// (SO_PEERGROUPS, socket(7)); x/sys has no call for it.
func peerGroups(fd uintptr) ([]uint32, error) {
	for n := uint32(64); ; {
		gids := make([]uint32, n)
		size := 4 * n
		_, _, no := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(unsafe.Pointer(&gids[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case no == unix.ERANGE && size/4 > n: // size says how much it takes
			n = size / 4
		case no != 0:
			return nil, no
		default:
			return gids[:size/4], nil
		}
	}
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return "uid " + id + " (" + u.Username + ")"
	}
	return "uid " + id
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
