package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/server/relay"
)

// maxTokenFile bounds what is read of --token-file, bytes.
const maxTokenFile = 4 << 10

// seedFlags are the flags that are not plain fields of relay.Config.
type seedFlags struct {
	key, tokenFile, listen string
	rateMbps               int
	debug                  bool
}

func newSeed(e *env) *cobra.Command {
	var cfg relay.Config
	var s seedFlags
	cmd := &cobra.Command{
		Use:   "seed --server HOST --server-key KEY --token-file FILE --images NAME[,NAME]",
		Short: "be a second source: copy images from a server and serve them", Args: exact(0),
		Long: `Seed runs on any Linux machine near a room, or beside the server. It copies the
newest version of each named image, reads the copy back against the server's
signature, and then feeds hosts as the server's plan says. It follows new versions,
goes on after a crash where it was, and fetches a cell again that rots on its disk.
Every week it looks for such cells by itself (--scrub).
Copies lie in STATE-DIR/relay. The token comes from "labswarm relay add" on the server.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.StateDir = filepath.Join(e.stateDir, "relay") // never the server's own image folder
			if err := s.apply(&cfg); err != nil {
				return err
			}
			level := slog.LevelInfo
			if s.debug {
				level = slog.LevelDebug
			}
			cfg.Log = slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level, ReplaceAttr: noTime}))
			defer onHangup(func() { cfg.Log.Info("SIGHUP: nothing to reload; new flags need a restart") })()
			err := relay.Run(cmd.Context(), cfg)
			var no *relay.Refused
			if errors.As(err, &no) {
				return &codeError{ExitNotAllowed, err}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Server, "server", "", "the server: HOST or HOST:PORT, the port of its agent listener")
	f.StringVar(&s.key, "server-key", "", "the server's key: sha256:HEX as `labswarm relay add` prints it, or a file with that or with the key as PEM")
	f.StringVar(&s.tokenFile, "token-file", "", "file with this relay's token")
	f.StringSliceVar(&cfg.Images, "images", nil, "names of the images to hold")
	f.StringVar(&cfg.Room, "room", "", "the room this machine stands in: its hosts are fed first")
	f.IntVar(&cfg.LinkMbps, "link-mbps", 0, "what this machine's link carries, Mb/s; 0 = not known")
	f.IntVar(&s.rateMbps, "rate-mbps", 0, "what is sent to all hosts together at most, Mb/s; 0 = no cap")
	f.DurationVar(&cfg.Scrub, "scrub", 7*24*time.Hour, "how often every cell on this disk is read and hashed again, at 100 MB/s at most and not while hosts are served; 0 = never")
	f.StringVar(&s.listen, "listen", ":"+strconv.Itoa(api.PeerPort), "address and port for hosts; a fixed address is also the one the server is called from")
	f.BoolVar(&s.debug, "debug", false, "log every step")
	return cmd
}

// apply parses what flags gave as text, and names every fault.
func (s *seedFlags) apply(cfg *relay.Config) error {
	var errs []error
	if cfg.Server == "" || s.key == "" || s.tokenFile == "" || len(cfg.Images) == 0 {
		errs = append(errs, errors.New("seed needs --server, --server-key, --token-file and --images"))
		return usage(errors.Join(errs...))
	}
	if _, _, err := net.SplitHostPort(cfg.Server); err != nil {
		cfg.Server = net.JoinHostPort(strings.Trim(cfg.Server, "[]"), strconv.Itoa(api.AgentPort))
	}
	var err error
	if cfg.Pin, err = relay.ReadPin(s.key); err != nil {
		errs = append(errs, err)
	}
	if cfg.Token, err = readToken(s.tokenFile); err != nil {
		errs = append(errs, err)
	}
	if cfg.Listen, err = listenAddr(s.listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q: %w", s.listen, err))
	}
	if cfg.LinkMbps < 0 || s.rateMbps < 0 || cfg.Scrub < 0 {
		errs = append(errs, errors.New("--link-mbps, --rate-mbps and --scrub are not negative"))
	}
	cfg.RateBps = int64(s.rateMbps) * 1_000_000 / 8
	if len(errs) > 0 {
		return usage(errors.Join(errs...))
	}
	return nil
}

// listenAddr reads ADDR:PORT; without ADDR it means all addresses.
func listenAddr(text string) (netip.AddrPort, error) {
	if strings.HasPrefix(text, ":") {
		text = "[::]" + text
	}
	return netip.ParseAddrPort(text)
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	buf := make([]byte, maxTokenFile)
	n, err := f.Read(buf)
	token := strings.TrimSpace(string(buf[:n]))
	if err != nil || token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("read token %q: want one line, as `labswarm relay add` printed it", path)
	}
	return token, nil
}
