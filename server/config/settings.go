package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"labswarm/internal/units"
)

// Kind is the TOML type of a setting's value.
type Kind int

// Kinds of values. Sizes, addresses and durations are strings: "50MiB", "2h".
const (
	Text Kind = iota
	Number
	Bool
	List // of strings
	Map  // name = number
)

// String names the kind as TOML does.
func (k Kind) String() string {
	return [...]string{"a string", "a whole number", "true or false", "a list of strings", "a table of numbers"}[k]
}

// Setting is one thing that can be told by file (Key), flag and environment.
type Setting struct {
	Key  string // table.name in the file
	Flag string // without --; the environment variable is LABSWARM_ and this in capitals
	Help string
	Kind Kind
	Live bool // SIGHUP takes it over; all others need a restart

	// Get and Set use one spelling, that of the flag: lists and maps are joined by commas.
	Get func(*Config) string
	Set func(*Config, string) error
}

// Env is the setting's environment variable.
func (s *Setting) Env() string {
	return "LABSWARM_" + strings.ToUpper(strings.ReplaceAll(s.Flag, "-", "_"))
}

func (s Setting) live() Setting { s.Live = true; return s }

func text(key, flag, help string, at func(*Config) *string) Setting {
	return Setting{Key: key, Flag: flag, Help: help, Get: func(c *Config) string { return *at(c) },
		Set: func(c *Config, v string) error { *at(c) = v; return nil }}
}

func boolean(key, flag, help string, at func(*Config) *bool) Setting {
	return Setting{Key: key, Flag: flag, Help: help, Kind: Bool, Get: func(c *Config) string { return strconv.FormatBool(*at(c)) },
		Set: func(c *Config, v string) error {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("%q: write true or false", v)
			}
			*at(c) = b
			return nil
		}}
}

func number(key, flag, help string, at func(*Config) *int) Setting {
	return Setting{Key: key, Flag: flag, Help: help, Kind: Number, Get: func(c *Config) string { return strconv.Itoa(*at(c)) },
		Set: func(c *Config, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil {
				return fmt.Errorf("%q: write a whole number", v)
			}
			*at(c) = n
			return nil
		}}
}

// size is a number of bytes; none is the value that "" stands for.
func size(key, flag, help string, none int64, at func(*Config) *int64) Setting {
	return Setting{Key: key, Flag: flag, Help: help,
		Get: func(c *Config) string {
			if n := *at(c); n != none {
				return sizeText(n)
			}
			return ""
		},
		Set: func(c *Config, v string) error {
			if v == "" {
				*at(c) = none
				return nil
			}
			n, err := units.ParseSize(strings.TrimSuffix(v, "/s"))
			if err == nil {
				*at(c) = n
			}
			return err
		}}
}

// sizeText writes bytes so that ParseSize reads the same number.
func sizeText(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func duration(key, flag, help string, at func(*Config) *time.Duration) Setting {
	return Setting{Key: key, Flag: flag, Help: help, Get: func(c *Config) string { return at(c).String() },
		Set: func(c *Config, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil {
				return fmt.Errorf("%q: write a duration such as 90m or 168h", v)
			}
			*at(c) = d
			return nil
		}}
}

func address(key, flag, help string, at func(*Config) *netip.Addr) Setting {
	return Setting{Key: key, Flag: flag, Help: help,
		Get: func(c *Config) string {
			if a := *at(c); a.IsValid() {
				return a.String()
			}
			return ""
		},
		Set: func(c *Config, v string) (err error) {
			if *at(c) = (netip.Addr{}); v != "" {
				*at(c), err = netip.ParseAddr(v)
			}
			return err
		}}
}

func list(key, flag, help string, at func(*Config) *[]string) Setting {
	return Setting{Key: key, Flag: flag, Help: help, Kind: List, Get: func(c *Config) string { return strings.Join(*at(c), ",") },
		Set: func(c *Config, v string) error {
			*at(c) = nil
			for part := range strings.SplitSeq(v, ",") {
				if part = strings.TrimSpace(part); part != "" {
					*at(c) = append(*at(c), part)
				}
			}
			return nil
		}}
}

func numbers(key, flag, help string, at func(*Config) *map[string]int) Setting {
	return Setting{Key: key, Flag: flag, Help: help, Kind: Map,
		Get: func(c *Config) string {
			var out []string
			for _, k := range slices.Sorted(maps.Keys(*at(c))) {
				out = append(out, fmt.Sprintf("%s=%d", k, (*at(c))[k]))
			}
			return strings.Join(out, ",")
		},
		Set: func(c *Config, v string) error {
			m := map[string]int{}
			for part := range strings.SplitSeq(v, ",") {
				if part = strings.TrimSpace(part); part == "" {
					continue
				}
				name, num, ok := strings.Cut(part, "=")
				n, err := strconv.Atoi(num)
				if !ok || err != nil {
					return fmt.Errorf("%q: write NAME=N", part)
				}
				m[name] = n
			}
			*at(c) = m
			return nil
		}}
}

// labInterface is a list in the file, for the day when a server has several; today it takes one.
func labInterface() Setting {
	return Setting{Key: "net.interfaces", Flag: "lab-if", Kind: List,
		Help: "interface of the classroom's network, one; nothing is answered on any other", Get: func(c *Config) string { return c.Interface },
		Set: func(c *Config, v string) error {
			if strings.Contains(v, ",") {
				return fmt.Errorf("%q: a server has one lab interface; run one server for each", v)
			}
			c.Interface = v
			return nil
		}}
}

// poolRange is two fields in one word.
func poolRange() Setting {
	return Setting{Key: "net.dhcp_range", Flag: "dhcp-range", Help: "addresses for dhcp = \"dhcp\": FIRST-LAST",
		Get: func(c *Config) string {
			if !c.PoolStart.IsValid() {
				return ""
			}
			return c.PoolStart.String() + "-" + c.PoolEnd.String()
		},
		Set: func(c *Config, v string) (err error) {
			if c.PoolStart, c.PoolEnd = (netip.Addr{}), (netip.Addr{}); v != "" {
				c.PoolStart, c.PoolEnd, err = ParseRange(v)
			}
			return err
		}}
}

// groupRoles is a list in the file: ["tutors=viewer", "labstaff=operator"].
func groupRoles() Setting {
	return Setting{Key: "admin.roles", Flag: "admin-roles", Kind: List,
		Help: "what groups may do over the socket, for example tutors=viewer,labstaff=operator; default: the socket's group may do all",
		Get: func(c *Config) string {
			var out []string
			for _, g := range slices.Sorted(maps.Keys(c.AdminRoles)) {
				out = append(out, g+"="+c.AdminRoles[g])
			}
			return strings.Join(out, ",")
		},
		Set: func(c *Config, v string) error {
			c.AdminRoles = nil
			for part := range strings.SplitSeq(v, ",") {
				if part = strings.TrimSpace(part); part == "" {
					continue
				}
				group, role, ok := strings.Cut(part, "=")
				if !ok {
					return fmt.Errorf("%q: write GROUP=ROLE", part)
				}
				if c.AdminRoles == nil {
					c.AdminRoles = map[string]string{}
				}
				c.AdminRoles[group] = role
			}
			return nil
		}}
}

// Settings lists everything that can be told, in the order of `config print`. From it come the keys of the file, the flags
// of `serve`, the environment and the printed form.
func Settings() []Setting {
	return []Setting{
		text("server.name", "name", "name of this server, for people; empty = the machine's name", func(c *Config) *string { return &c.Name }),
		text("server.state_dir", "state-dir", "keys, database, images, logs, socket", func(c *Config) *string { return &c.StateDir }),
		boolean("server.debug", "debug", "log every step", func(c *Config) *bool { return &c.Debug }).live(),
		labInterface(),
		text("net.dhcp", "dhcp", "proxy: beside the router's DHCP; dhcp: give addresses too; off: TFTP and HTTP only", func(c *Config) *string { return &c.DHCP }),
		poolRange(),
		address("net.router", "router", "default route for dhcp = \"dhcp\"", func(c *Config) *netip.Addr { return &c.Router }),
		address("net.dns", "dns", "name server for dhcp = \"dhcp\"", func(c *Config) *netip.Addr { return &c.DNS }),
		text("net.proxy_style", "proxy-style", "offer, 4011 or menu, for stubborn firmware", func(c *Config) *string { return &c.ProxyStyle }),
		text("boot.dir", "boot-dir", "boot files; empty = STATE-DIR/boot", func(c *Config) *string { return &c.BootDir }),
		text("boot.style", "boot-style", "what a known host without a job gets: chain (a script that starts its disk) or silent", func(c *Config) *string { return &c.BootStyle }),
		boolean("boot.answer_router_solicits", "answer-rs", "answer router solicitations with an empty advertisement: iPXE starts 16 s sooner", func(c *Config) *bool { return &c.AnswerRS }),
		text("boot.kernel_args", "kernel-args", "more kernel arguments for the agent, for example console=ttyS0,115200", func(c *Config) *string { return &c.KernelArgs }),
		size("limits.seed_rate", "seed-rate", "what the server sends to all hosts together at most, bytes a second, for example 50MiB", 0, func(c *Config) *int64 { return &c.SeedRateBps }),
		number("limits.seed_mbps", "seed-mbps", "speed of the server's link in Mb/s, which decides how many rooms are fed side by side; 0 = as the kernel reports it", func(c *Config) *int { return &c.SeedMbps }),
		numbers("limits.room_mbps", "room-mbps", "most that travels into and inside a room in Mb/s, for jobs by day, for example B202=200,B203=200", func(c *Config) *map[string]int { return &c.RoomMbps }),
		text("images.frames", "frames", "compressed cells: auto (a host on 10 Gb/s or more takes plain ones unless its disk is slower), on or off", func(c *Config) *string { return &c.Frames }),
		boolean("images.plain_peers", "plain-peers", "let standard BitTorrent clients fetch images (TCP 7441, tracker on 7442)", func(c *Config) *bool { return &c.PlainPeers }),
		size("images.keep_free", "keep-free", "what stays free of the image store's disk, for example 2GiB; empty: 5 % of it, or 10 GiB where that is at most a tenth", -1, func(c *Config) *int64 { return &c.KeepFree }),
		duration("images.scrub_every", "scrub-every", "how often each image is read again and compared, at night; 0s = never", func(c *Config) *time.Duration { return &c.ScrubEvery }).live(),
		size("images.scrub_rate", "scrub-rate", "what that reads at most, bytes a second; it waits while a job runs; empty or 0 = no limit", 0, func(c *Config) *int64 { return &c.ScrubBps }).live(),
		text("admin.listen", "admin-listen", "ADDRESS:PORT on which other machines may use the admin API, with TLS and tokens (labswarm token add); empty = the socket only", func(c *Config) *string { return &c.AdminListen }),
		text("admin.socket_group", "socket-group", "group whose members may open the admin socket", func(c *Config) *string { return &c.SocketGroup }),
		groupRoles(),
		text("metrics.listen", "metrics-listen", "ADDRESS:PORT for /metrics, /healthz and /readyz over plain HTTP, without secrets; empty = on the admin socket only", func(c *Config) *string { return &c.MetricsListen }),
		text("notify.webhook", "notify-webhook", "URL that gets each message as JSON", func(c *Config) *string { return &c.Notify.Webhook }).live(),
		text("notify.webhook_credential", "notify-webhook-credential", "where the webhook's secret is: name of a systemd credential, or absolute path of a file", func(c *Config) *string { return &c.Notify.WebhookCredential }).live(),
		text("notify.mail_host", "notify-mail-host", "mail server, HOST or HOST:PORT; port 465 begins with TLS, others with STARTTLS", func(c *Config) *string { return &c.Notify.MailHost }).live(),
		text("notify.mail_from", "notify-mail-from", "sender; empty = labswarm@ and the machine's name", func(c *Config) *string { return &c.Notify.MailFrom }).live(),
		list("notify.mail_to", "notify-mail-to", "who gets each message by mail", func(c *Config) *[]string { return &c.Notify.MailTo }).live(),
		text("notify.mail_user", "notify-mail-user", "user at the mail server; empty = none", func(c *Config) *string { return &c.Notify.MailUser }).live(),
		text("notify.mail_password_credential", "notify-mail-password-credential", "where the password is: name of a systemd credential, or absolute path of a file", func(c *Config) *string { return &c.Notify.MailPasswordCredential }).live(),
	}
}
