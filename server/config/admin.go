package config

import (
	"net"
	"path/filepath"
	"strconv"

	"crypto/ed25519"

	"labswarm/api"
)

// checkAdmin looks at who may use the admin API, and from where.
func (c *Config) checkAdmin(bad func(format string, a ...any)) {
	if c.AdminListen != "" {
		host, port, err := net.SplitHostPort(c.AdminListen)
		n, perr := strconv.Atoi(port)
		if err != nil || perr != nil || n < 0 || n > 65535 || host == "" {
			bad("--admin-listen %q: write it as ADDRESS:PORT, for example 10.8.1.2:7443", c.AdminListen)
		}
	}
	for group, role := range c.AdminRoles {
		if _, ok := api.ParseRole(role); !ok || group == "" {
			bad("--admin-roles %s=%s: use GROUP=viewer, operator or admin", group, role)
		}
	}
	if len(c.AdminRoles) > 0 && c.SocketGroup == "" {
		bad("--admin-roles gives groups a role, but only root can open the socket: name the group that can with --socket-group")
	}
	if c.SocketGroup != "" && len(c.AdminRoles) == 0 {
		c.AdminRoles = map[string]string{c.SocketGroup: api.RoleAdmin.String()}
	}
}

// LoadAdminKey reads the key of the admin API over TLS, and makes it at the
// first start. It is not the server key: that one is pinned in every initramfs.
func LoadAdminKey(stateDir string) (ed25519.PrivateKey, error) {
	return loadOrMake(filepath.Join(stateDir, "keys", "admin.key"))
}
