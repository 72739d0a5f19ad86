// Package config holds what `labswarm serve` can be told, its defaults and its
// checks. One table (Settings) gives the keys of the configuration file, the flags of
// `serve`, the environment and the printed form. Called by cmd/labswarm and server/daemon.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labswarm/api"
)

// Config is a server's configuration. Start from Default.
type Config struct {
	Name      string // of this server, for people; "" = the machine's name
	StateDir  string // keys, database, images, logs, socket
	Interface string // lab interface; there is no default
	DHCP      string // proxy, dhcp or off
	BootDir   string // boot files; "" = StateDir/boot

	PoolStart netip.Addr // DHCP "dhcp": first address given out
	PoolEnd   netip.Addr // last one
	Router    netip.Addr // DHCP option 3, invalid = none
	DNS       netip.Addr // DHCP option 6, invalid = none

	BootStyle  string // how "boot your own disk" is said to known hosts: chain or silent
	ProxyStyle string // offer, 4011 or menu
	AnswerRS   bool   // answer router solicitations with an empty RA: iPXE boots 16 s faster
	KernelArgs string // appended to the agent's command line

	SeedRateBps int64          // bytes per second the server sends to all hosts together, 0 = no cap
	SeedMbps    int            // what the server's link carries, Mb/s; 0 = ask the kernel
	RoomMbps    map[string]int // what may be sent into and inside a room, Mb/s; no entry = no cap
	Frames      string         // compressed cells: auto (each host decides by its link and disk), on or off
	PlainPeers  bool           // let standard BitTorrent clients in (tracker on TCP 7442)

	KeepFree   int64         // bytes of the image store's disk that stay free; < 0 = by its size
	ScrubEvery time.Duration // between two scrubs of an image version, 0 = never
	ScrubBps   int64         // bytes per second a scrub reads, 0 = no limit

	AdminListen   string            // ADDR:PORT of the admin API over TLS with tokens; "" = the socket only
	SocketGroup   string            // group that may open the admin socket; "" = that of the state folder's owner
	AdminRoles    map[string]string // what a group may do over the socket: viewer, operator, admin
	Debug         bool              // log every step
	MetricsListen string            // HOST:PORT of /metrics, /healthz and /readyz over TCP, "" = none
	Notify        Notify

	// Ports, 0 = the documented ones. Others are for tests.
	AgentPort, PeerPort, TrackerPort            int
	DHCPPort, ProxyPort, TFTPPort, BootHTTPPort int
}

// Notify says who is told of ends and alarms. Nobody is when Webhook and MailHost are "".
type Notify struct {
	Webhook                string // URL
	WebhookCredential      string // name of a systemd credential, or absolute path of a file
	MailHost               string // HOST or HOST:PORT
	MailFrom, MailUser     string
	MailTo                 []string
	MailPasswordCredential string // as WebhookCredential
}

// Default returns the safe defaults; StateDir and Interface must still be set.
func Default() Config {
	return Config{
		DHCP: "proxy", BootStyle: "chain", ProxyStyle: "offer", AnswerRS: true, Frames: "auto",
		KeepFree: -1, ScrubEvery: 7 * 24 * time.Hour, ScrubBps: 100 << 20,
		AgentPort: api.AgentPort, PeerPort: api.PeerPort, TrackerPort: api.PlainTrackerPort,
	}
}

// Error lists every fault of a configuration: exit code 78.
type Error struct{ Err error }

// Error lists the faults, one per line.
func (e *Error) Error() string { return "bad configuration: " + e.Err.Error() }

// Unwrap returns the joined faults.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode implements the command line's convention.
func (e *Error) ExitCode() int { return 78 }

// ParseRange reads an address pool, "10.0.0.100-10.0.0.199".
func ParseRange(text string) (from, to netip.Addr, err error) {
	a, b, ok := strings.Cut(text, "-")
	if ok {
		from, err = netip.ParseAddr(strings.TrimSpace(a))
		if err == nil {
			to, err = netip.ParseAddr(strings.TrimSpace(b))
		}
	}
	if !ok || err != nil || !from.Is4() || !to.Is4() || to.Less(from) {
		return from, to, fmt.Errorf("address pool %q: write it as FIRST-LAST, for example 10.0.0.100-10.0.0.199", text)
	}
	return from, to, nil
}

// Fill completes the defaults and checks everything; *Error names all faults.
func (c *Config) Fill() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.StateDir == "" {
		bad("no state folder: name it with --state-dir")
	} else if abs, err := filepath.Abs(c.StateDir); err != nil {
		bad("state folder %q: %w", c.StateDir, err)
	} else {
		c.StateDir = abs
	}
	if c.Interface == "" {
		bad("no lab interface: name it with --lab-if (the wrong one hands boot files to the office, so there is no default)")
	}
	one := func(what, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		bad("%s %q: use %s", what, value, strings.Join(allowed, ", "))
	}
	one("--dhcp", c.DHCP, "proxy", "dhcp", "off")
	one("--boot-style", c.BootStyle, "chain", "silent")
	one("--proxy-style", c.ProxyStyle, "offer", "4011", "menu")
	if c.Frames == "" {
		c.Frames = "auto"
	}
	one("--frames", c.Frames, "auto", "on", "off")
	if c.DHCP == "dhcp" && !c.PoolStart.IsValid() {
		bad("--dhcp dhcp gives out addresses: name them with --dhcp-range FIRST-LAST")
	}
	if c.ScrubEvery < 0 || c.ScrubBps < 0 {
		bad("--scrub-every %s, --scrub-rate %d: use 0 or more", c.ScrubEvery, c.ScrubBps)
	}
	if c.SeedRateBps < 0 {
		bad("the seed's rate is negative")
	}
	for room, mbps := range c.RoomMbps {
		if room == "" || mbps <= 0 {
			bad("--room-mbps %s=%d: use ROOM=N with N in Mb/s", room, mbps)
		}
	}
	if c.SeedMbps < 0 {
		bad("--seed-mbps %d: use the link's speed in Mb/s, or 0 to ask the kernel", c.SeedMbps)
	}
	c.checkAdmin(bad)
	for _, p := range []int{c.AgentPort, c.PeerPort, c.TrackerPort, c.DHCPPort, c.ProxyPort, c.TFTPPort, c.BootHTTPPort} {
		if p < 0 || p > 65535 {
			bad("port %d is out of range", p)
		}
	}
	c.checkListen(bad)
	if c.BootDir == "" {
		c.BootDir = filepath.Join(c.StateDir, "boot")
	}
	if c.Name == "" {
		c.Name = "labswarm"
		if n, err := os.Hostname(); err == nil && n != "" {
			c.Name = n
		}
	}
	if len(errs) > 0 {
		return &Error{Err: errors.Join(errs...)}
	}
	return nil
}

// checkListen checks what names other machines.
func (c *Config) checkListen(bad func(string, ...any)) {
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			bad("--metrics-listen %q: write ADDRESS:PORT, for example 127.0.0.1:7443", c.MetricsListen)
		}
	}
	n := c.Notify
	if n.Webhook != "" {
		u, err := url.Parse(n.Webhook)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			bad("--notify-webhook: write http:// or https:// with a host and without a password in it")
		}
		if n.WebhookCredential == "" {
			bad("--notify-webhook needs --notify-webhook-credential: messages are signed with that secret")
		}
	}
	if (n.MailHost == "") != (len(n.MailTo) == 0) {
		bad("mail needs both --notify-mail-host and --notify-mail-to")
	}
	for _, to := range append([]string{n.MailFrom}, n.MailTo...) {
		if a, err := mail.ParseAddress(to); to != "" && (err != nil || a.Address != to) {
			bad("mail address %q: write it as user@host", to)
		}
	}
	if (n.MailUser == "") != (n.MailPasswordCredential == "") {
		bad("--notify-mail-user and --notify-mail-password-credential go together")
	}
}
