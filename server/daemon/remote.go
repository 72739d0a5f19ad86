package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/server/access"
	"labswarm/server/config"
	"labswarm/server/httpapi"
	"labswarm/server/netboot/portowner"
)

// shareSocket opens the admin socket to --socket-group: the group may pass the
// state folder, not list it, and what it may do is --admin-roles.
func (s *server) shareSocket(path string) (err error) {
	if s.peers, err = access.NewPeers(s.cfg.AdminRoles); err != nil {
		return &config.Error{Err: fmt.Errorf("--admin-roles: %w", err)}
	}
	if s.cfg.SocketGroup == "" {
		return nil
	}
	gid, err := access.GroupID(s.cfg.SocketGroup)
	if err != nil {
		return &config.Error{Err: fmt.Errorf("--socket-group: %w", err)}
	}
	for _, f := range []struct {
		path string
		mode os.FileMode
	}{{s.cfg.StateDir, 0o710}, {path, 0o660}} {
		if err := os.Chown(f.path, -1, gid); err != nil {
			return fmt.Errorf("give %s to group %s: %w", f.path, s.cfg.SocketGroup, err)
		}
		if err := os.Chmod(f.path, f.mode); err != nil {
			return fmt.Errorf("give %s to group %s: %w", f.path, s.cfg.SocketGroup, err)
		}
	}
	return nil
}

// openRemote binds --admin-listen.
func (s *server) openRemote(ctx context.Context) error {
	if s.cfg.AdminListen == "" {
		return nil
	}
	key, err := config.LoadAdminKey(s.cfg.StateDir)
	if err != nil {
		return err
	}
	if s.adminCert, err = certificate(key); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.AdminListen)
	if err != nil {
		_, port, _ := net.SplitHostPort(s.cfg.AdminListen) // checked by config
		n, _ := strconv.Atoi(port)
		return portowner.Explain(err, "tcp", n)
	}
	s.adminTLS = l
	s.onClose(l.Close)
	return nil
}

// fingerprint names the key of --admin-listen, "" = there is none.
func (s *server) fingerprint() string {
	if s.adminTLS == nil {
		return ""
	}
	return client.Fingerprint(s.adminCert.Certificate[0])
}

// serveRemote answers on --admin-listen.
func (s *server) serveRemote(ctx context.Context, admin *httpapi.Admin) error {
	if s.adminTLS == nil {
		return nil
	}
	s.log.Info("admin API over TLS", "listen", s.adminTLS.Addr().String(), "fingerprint", s.fingerprint())
	return admin.ServeTLS(ctx, s.adminTLS, s.adminCert)
}

// AddToken implements httpapi.AccessService: with the secret goes where to use it.
func (a adminService) AddToken(ctx context.Context, req *api.TokenAdd) (api.TokenMade, error) {
	made, err := a.Book.AddToken(ctx, req)
	if err == nil && a.s.adminTLS != nil {
		made.Listen, made.Fingerprint = a.s.adminTLS.Addr().String(), a.s.fingerprint()
	}
	return made, err
}
