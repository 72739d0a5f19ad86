package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/doctor"
	"labswarm/server/netboot"
	"labswarm/server/netboot/bootfile"
	"labswarm/server/netboot/portowner"
)

const (
	// doctorRest: somebody who asks again so soon gets the last answer, and the network no second probe.
	doctorRest = 10 * time.Second
	// watchEvery is between two looks for a second boot server; watchFirst is after the start.
	watchEvery = 5 * time.Minute
	watchFirst = time.Minute
)

// doctorDesk lets one checkup run at a time.
type doctorDesk struct {
	mu   sync.Mutex
	last api.Checkup
}

// Doctor implements httpapi.OpsService.
func (a adminService) Doctor(ctx context.Context) (api.Checkup, error) {
	d := &a.s.doctor
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.last.Time) < doctorRest {
		return d.last, nil
	}
	cfg := a.s.doctorConfig(ctx)
	d.last = doctor.Run(ctx, cfg)
	return d.last, nil
}

// doctorConfig is what the running server knows of itself.
func (s *server) doctorConfig(ctx context.Context) doctor.Config {
	cfg := machineConfig(s.cfg)
	cfg.Running, cfg.IP = true, s.ip
	// Unknown = 0: the checks that depend on it are then about a small site.
	cfg.Hosts, _, _ = s.engine.Counts(ctx)
	cfg.Heard = func(string) bool { return true }
	if s.boot != nil {
		cfg.Heard = s.boot.Heard
	}
	if s.files != nil {
		for _, f := range s.files.List() {
			cfg.Files = append(cfg.Files, doctor.BootFile{Name: f.Name, Served: f.Data})
		}
	}
	// An error would have stopped the start.
	cfg.Pins, _ = bootfile.PinsJSON([][]byte{s.keys.ServerPublic()}, [][]byte{s.keys.ImagePublic()})
	cfg.Images, cfg.Scrub, cfg.Ballast = s.imageFacts, s.cfg.ScrubEvery, s.store.HasBallast()
	cfg.Lab = s.labFacts
	if list, err := Snapshots(s.cfg.StateDir); err == nil && len(list) > 0 {
		cfg.Snapshot = list[0].Time
	}
	return cfg
}

// labFacts is what waits for a person.
func (s *server) labFacts(ctx context.Context) (l doctor.Lab, err error) {
	if l.Schedules, l.Faults, err = s.engine.ScheduleFaults(ctx); err != nil {
		return l, err
	}
	open, err := s.engine.Questions(ctx)
	if err != nil {
		return l, err
	}
	l.Questions = len(open)
	hosts, err := s.engine.Hosts(ctx)
	for _, h := range hosts {
		if h.Quarantined != "" {
			l.Quarantined = append(l.Quarantined, h.Name)
		}
	}
	return l, err
}

// imageFacts joins files and records of the image versions.
func (s *server) imageFacts(ctx context.Context) ([]doctor.Image, error) {
	list, err := s.library.List()
	if err != nil {
		return nil, err
	}
	states, err := s.keeper.ImageStates(ctx)
	if err != nil {
		return nil, err
	}
	var out []doctor.Image
	for _, v := range list {
		i := doctor.Image{Name: v.Name + "/" + v.Version, Err: v.Err, Checked: v.Created}
		for _, st := range states {
			if st.Name == v.Name && st.Version == v.Version {
				i.Quarantine = st.Quarantine
				if st.Checked.After(i.Checked) {
					i.Checked = st.Checked
				}
			}
		}
		out = append(out, i)
	}
	return out, nil
}

// machineConfig is what can be asked without a server.
func machineConfig(c Config) doctor.Config {
	cfg := doctor.Config{Interface: c.Interface, DHCP: c.DHCP, StateDir: c.StateDir, BootDir: c.BootDir, TFTPPort: c.TFTPPort, HTTPPort: c.BootHTTPPort,
		PortOwner: otherOwners, Built: builtAt()}
	if cfg.TFTPPort == 0 {
		cfg.TFTPPort = 69
	}
	if cfg.HTTPPort == 0 {
		cfg.HTTPPort = 80
	}
	ifi, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return cfg // the check of the interface says so
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return cfg
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			cfg.Prefix, cfg.IP = p, p.Addr()
			break
		}
	}
	return cfg
}

// DoctorAlone examines the machine and its network while no server runs.
func DoctorAlone(ctx context.Context, c Config) (api.Checkup, error) {
	if err := c.Fill(); err != nil {
		return api.Checkup{}, err
	}
	out := doctor.Run(ctx, machineConfig(c))
	out.Checks = append([]api.Check{{Name: "server", Result: api.CheckWarn, Text: "no server runs with the state folder " + c.StateDir,
		Advice: "systemctl start labswarm; then ask again: more is checked in a running server"}}, out.Checks...)
	out.Result = api.Worst(out.Checks)
	return out, nil
}

// otherOwners names the processes on a port that are not this one.
func otherOwners(network string, port int) ([]string, error) {
	list, err := portowner.Find(network, port)
	if err != nil {
		return nil, fmt.Errorf("look who holds %s port %d: %w", network, port, err)
	}
	var out []string
	for _, o := range list {
		if o.PID != os.Getpid() {
			out = append(out, fmt.Sprintf("%s (pid %d, on %s)", o.Name, o.PID, o.Addr))
		}
	}
	return out, nil
}

// builtAt is the time of the program's commit, zero when it is not known.
func builtAt() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
					return t
				}
			}
		}
	}
	return time.Time{}
}

// watchNet looks now and then for a second server that offers boot files, until ctx ends; nil then.
func (s *server) watchNet(ctx context.Context) error {
	t := time.NewTimer(watchFirst)
	defer t.Stop()
	mac := doctor.NewMAC() // one for the whole run: a router's pool must not fill with PCs that do not exist
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		answers, err := doctor.Discover(ctx, s.cfg.Interface, mac, nil)
		if err != nil {
			s.log.Debug("look for other boot servers", "err", err)
		}
		for _, a := range answers {
			if a.Boot == "" || a.Server == s.ip {
				continue
			}
			s.metrics.ForeignOffers.Inc()
			s.engine.Sighting(netboot.Sighting{Kind: netboot.SightForeignBoot, MAC: a.MAC, IP: a.Server, Detail: a.Boot})
		}
		t.Reset(watchEvery)
	}
}
