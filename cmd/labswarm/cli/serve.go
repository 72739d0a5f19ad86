package cli

import (
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/server/config"
	"labswarm/server/daemon"
)

// settingFlag is one setting as a flag. It only collects: config.Load gives the words their meaning, so that flag, file and
// environment are read by the same code.
type settingFlag struct {
	s     *config.Setting
	value string
}

func (f *settingFlag) String() string { return f.value }

// Set implements pflag.Value. A table may be given in several flags.
func (f *settingFlag) Set(v string) error {
	var scratch config.Config
	if err := f.s.Set(&scratch, v); err != nil {
		return err
	}
	if f.s.Kind == config.Map && f.value != "" {
		v = f.value + "," + v
	}
	f.value = v
	return nil
}

// Type implements pflag.Value: it is what `--help` prints behind the flag.
func (f *settingFlag) Type() string {
	return [...]string{"string", "int", "bool", "strings", "NAME=N"}[f.s.Kind]
}

// configFlags is where a command's configuration comes from.
type configFlags struct {
	file string
}

// add gives cmd all settings as flags; --state-dir is the root's.
func (c *configFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	file := os.Getenv("LABSWARM_CONFIG")
	if file == "" {
		file = config.DefaultFile
	}
	f.StringVar(&c.file, "config", file, "configuration file; conf.d/*.toml beside it follow (or LABSWARM_CONFIG)")
	def := config.Default()
	settings := config.Settings()
	for i := range settings {
		s := &settings[i]
		if s.Flag == "state-dir" {
			continue
		}
		flag := f.VarPF(&settingFlag{s, s.Get(&def)}, s.Flag, "", s.Help)
		if s.Kind == config.Bool {
			flag.NoOptDefVal = "true"
		}
	}
}

// source is what the command line says. A file that a person named must exist.
func (c *configFlags) source(cmd *cobra.Command) config.Source {
	src := config.Source{File: c.file, Must: cmd.Flags().Changed("config") || os.Getenv("LABSWARM_CONFIG") != "", Env: os.LookupEnv, Flags: map[string]string{}}
	for _, s := range config.Settings() {
		if f := cmd.Flags().Lookup(s.Flag); f != nil && f.Changed {
			src.Flags[s.Flag] = f.Value.String()
		}
	}
	return src
}

func newServe(e *env) *cobra.Command {
	var (
		from  configFlags
		check bool
	)
	cmd := &cobra.Command{
		Use: "serve", Short: "run the server", Args: exact(0),
		Long: `Serve answers netboot on one interface and deploys images. A PC that is unknown or
has no job boots its own disk. SIGTERM ends it; running deployments go on from each
other and are picked up at the next start.

Settings come from flags, then LABSWARM_* variables, then conf.d/*.toml, then labswarm.toml,
then defaults ("labswarm config print"). SIGHUP reads the files again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src := from.source(cmd)
			loaded, err := config.Complete(src)
			if err != nil {
				return err
			}
			if check {
				return e.printf("the configuration is right: interface %s, DHCP %s, state in %s\n", loaded.Config.Interface, loaded.Config.DHCP, loaded.Config.StateDir)
			}
			var level slog.LevelVar
			setLevel(&level, loaded.Config.Debug)
			log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: &level, ReplaceAttr: noTime}))
			r := &reloader{cfg: loaded.Config, src: src, level: &level, log: log, to: make(chan config.Config, 1)}
			defer onHangup(r.reload)()
			return daemon.Serve(cmd.Context(), loaded.Config, log, r.to)
		},
	}
	from.add(cmd)
	cmd.Flags().BoolVar(&check, "check-config", false, "read the whole configuration, say what is wrong with it, and end (exit code 78)")
	return cmd
}

func setLevel(l *slog.LevelVar, debug bool) {
	if l.Set(slog.LevelInfo); debug {
		l.Set(slog.LevelDebug)
	}
}

// reloader takes over what SIGHUP can change. Only onHangup's goroutine calls it.
type reloader struct {
	cfg   config.Config
	src   config.Source
	level *slog.LevelVar
	log   *slog.Logger
	to    chan config.Config
}

// reload reads the files again. A faulty file changes nothing.
func (r *reloader) reload() {
	next, err := config.Complete(r.src)
	if err != nil {
		r.log.Error("SIGHUP: the configuration has faults, nothing is changed", "err", err)
		return
	}
	taken, restart := config.Adopt(r.cfg, next.Config)
	for _, c := range restart {
		r.log.Warn("SIGHUP: this setting needs a restart", "key", c.Key, "now", c.Old, "file", c.New)
	}
	for _, c := range config.Diff(r.cfg, taken) {
		r.log.Info("SIGHUP: setting changed", "key", c.Key, "from", c.Old, "to", c.New)
	}
	r.cfg = taken
	setLevel(r.level, taken.Debug)
	for { // the newest counts: an older one that nobody took yet goes
		select {
		case r.to <- taken:
			r.log.Info("SIGHUP: configuration read", "needs_restart", len(restart))
			return
		case <-r.to:
		}
	}
}

func newConfig(e *env) *cobra.Command {
	var (
		from     configFlags
		defaults bool
	)
	show := &cobra.Command{
		Use: "print", Short: "what `serve` would run with, and who said so; a file that it reads back", Args: exact(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			src := from.source(cmd)
			if defaults {
				src = config.Source{}
			}
			loaded, err := config.Load(src)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(settingsJSON(&loaded))
			}
			return e.printf("%s", loaded.Print())
		},
	}
	from.add(show)
	show.Flags().BoolVar(&defaults, "defaults", false, "the defaults, whatever files, variables and flags say")
	return group("config", "the server's configuration", show)
}

type settingJSON struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  string `json:"from"` // FILE:LINE, variable, flag or "default"
	Live  bool   `json:"reloads"`
	Help  string `json:"help"`
}

func settingsJSON(l *config.Loaded) []settingJSON {
	var out []settingJSON
	for _, s := range config.Settings() {
		from := l.From[s.Key]
		if from == "" {
			from = "default"
		}
		out = append(out, settingJSON{s.Key, s.Get(&l.Config), from, s.Live, s.Help})
	}
	return out
}

// fileStateDir is the state folder that the configuration file names, for commands that talk to a server; "" = none. A
// faulty file is told by `serve`, not by them.
func fileStateDir() string {
	file := os.Getenv("LABSWARM_CONFIG")
	if file == "" {
		file = config.DefaultFile
	}
	l, err := config.Load(config.Source{File: file})
	if err != nil || l.From["server.state_dir"] == "" || strings.TrimSpace(l.Config.StateDir) == "" {
		return ""
	}
	return l.Config.StateDir
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
