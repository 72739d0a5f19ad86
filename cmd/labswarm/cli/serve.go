package cli

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/internal/units"
	"labswarm/server/config"
	"labswarm/server/daemon"
)

// serveFlags are the flags that are not plain fields of config.Config.
type serveFlags struct {
	pool, router, dns, rate string
	keepFree, scrubRate     string
	debug                   bool
}

func newServe(e *env) *cobra.Command {
	cfg := config.Default()
	var s serveFlags
	cmd := &cobra.Command{
		Use: "serve --lab-if IF", Short: "run the server", Args: exact(0),
		Long: `Serve answers netboot on one interface and deploys images. A PC that is unknown or
has no job boots its own disk. SIGTERM ends it; running deployments go on from each
other and are picked up at the next start.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.StateDir = e.stateDir
			if err := s.apply(&cfg); err != nil {
				return err
			}
			level := slog.LevelInfo
			if s.debug {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level, ReplaceAttr: noTime}))
			defer onHangup(func() { log.Info("SIGHUP: nothing to reload; new flags need a restart") })()
			return daemon.Run(cmd.Context(), cfg, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Interface, "lab-if", "", "interface of the classroom's network; nothing is answered on any other")
	f.StringVar(&cfg.DHCP, "dhcp", cfg.DHCP, "proxy: beside the router's DHCP; dhcp: give addresses too; off: TFTP and HTTP only")
	f.StringVar(&cfg.BootDir, "boot-dir", "", "boot files; empty = STATE-DIR/boot")
	f.StringVar(&s.pool, "dhcp-range", "", "addresses for --dhcp dhcp: FIRST-LAST")
	f.StringVar(&s.router, "router", "", "default route for --dhcp dhcp")
	f.StringVar(&s.dns, "dns", "", "name server for --dhcp dhcp")
	f.StringVar(&cfg.BootStyle, "boot-style", cfg.BootStyle, "what a known host without a job gets: chain (a script that starts its disk) or silent")
	f.StringVar(&cfg.ProxyStyle, "proxy-style", cfg.ProxyStyle, "offer, 4011 or menu, for stubborn firmware")
	f.BoolVar(&cfg.AnswerRS, "answer-rs", cfg.AnswerRS, "answer router solicitations with an empty advertisement: iPXE starts 16 s sooner")
	f.StringVar(&cfg.KernelArgs, "kernel-args", "", "more kernel arguments for the agent, for example console=ttyS0,115200")
	f.StringVar(&cfg.Name, "name", "", "name of this server, for people")
	f.StringVar(&s.rate, "seed-rate", "", "what the server sends to all hosts together at most, bytes a second, for example 50MiB")
	f.StringToIntVar(&cfg.RoomMbps, "room-mbps", nil, "most that travels into and inside a room in Mb/s, for jobs by day, for example B202=200,B203=200")
	f.IntVar(&cfg.SeedMbps, "seed-mbps", 0, "speed of the server's link in Mb/s, which decides how many rooms are fed side by side; 0 = as the kernel reports it")
	f.StringVar(&cfg.Frames, "frames", cfg.Frames, "compressed cells: auto (a host on 10 Gb/s or more takes plain ones unless its disk is slower), on or off")
	f.BoolVar(&cfg.PlainPeers, "plain-peers", false, "let standard BitTorrent clients fetch images (TCP 7441, tracker on 7442)")
	f.StringVar(&s.keepFree, "keep-free", os.Getenv("LABSWARM_KEEP_FREE"), keepFreeHelp)
	f.DurationVar(&cfg.ScrubEvery, "scrub-every", cfg.ScrubEvery, "how often each image is read again and compared, at night; 0 = never")
	f.StringVar(&s.scrubRate, "scrub-rate", "100MiB", "what that reads at most, bytes a second; it waits while a job runs; 0 = no limit")
	f.StringVar(&cfg.AdminListen, "admin-listen", "", "ADDRESS:PORT on which other machines may use the admin API, with TLS and tokens (labswarm token add); empty = the socket only")
	f.StringVar(&cfg.SocketGroup, "socket-group", "", "group whose members may open the admin socket")
	f.StringToStringVar(&cfg.AdminRoles, "admin-roles", nil, "what groups may do over the socket, for example tutors=viewer,labstaff=operator; default: --socket-group may do all")
	f.BoolVar(&s.debug, "debug", false, "log every step")
	return cmd
}

// apply parses what flags gave as text.
func (s *serveFlags) apply(cfg *config.Config) error {
	var err error
	if s.pool != "" {
		if cfg.PoolStart, cfg.PoolEnd, err = config.ParseRange(s.pool); err != nil {
			return usage(err)
		}
	}
	for _, a := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"--router", s.router, &cfg.Router}, {"--dns", s.dns, &cfg.DNS}} {
		if a.text == "" {
			continue
		}
		if *a.to, err = netip.ParseAddr(a.text); err != nil {
			return usage(fmt.Errorf("%s: %w", a.flag, err))
		}
	}
	if s.keepFree != "" {
		if cfg.KeepFree, err = units.ParseSize(s.keepFree); err != nil {
			return usage(fmt.Errorf("--keep-free: %w", err))
		}
	}
	if cfg.ScrubBps, err = units.ParseSize(strings.TrimSuffix(s.scrubRate, "/s")); err != nil {
		return usage(fmt.Errorf("--scrub-rate: %w", err))
	}
	if s.rate != "" {
		if cfg.SeedRateBps, err = units.ParseSize(strings.TrimSuffix(s.rate, "/s")); err != nil {
			return usage(fmt.Errorf("--seed-rate: %w", err))
		}
	}
	return nil
}

// noTime drops the time stamp under systemd, which adds its own.
func noTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 || a.Key != slog.TimeKey {
		return a
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		return slog.Attr{}
	}
	return slog.String(slog.TimeKey, a.Value.Time().Format(time.StampMilli))
}
