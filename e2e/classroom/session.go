package classroom

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/internal/testnet"
	"labswarm/internal/testvm"
)

// Session is one running classroom: a LAN, a server, terminals. Open makes it,
// Close removes everything it made.
type Session struct {
	Options
	net       *testnet.Net
	admin     *admin
	work      string // temporary folder, removed by Close
	bootDir   string
	server    *testnet.Process
	serverLog *os.File
	terminals []*Terminal
	say       *printer

	mu   sync.Mutex
	zero time.Time // first power-on
}

// start is the time of the first power-on, which this call sets when none was yet.
func (s *Session) start() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zero.IsZero() {
		s.zero = time.Now()
	}
	return s.zero
}

// Open checks the options and this machine, imports the image file if one is
// given, starts the server and makes the terminals, all off. On an error nothing
// is left behind.
func Open(ctx context.Context, o Options) (_ *Session, err error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if err := testnet.Check(); err != nil {
		return nil, err
	}
	if err := testvm.Check(o.Firmware...); err != nil {
		return nil, err
	}
	s := &Session{Options: o, say: newPrinter(o.Out)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.work, err = makeWork(); err != nil {
		return nil, err
	}
	if s.StateDir == "" {
		s.StateDir = filepath.Join(s.work, "state")
	}
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	s.admin = newAdmin(o.Binary, s.StateDir)
	if err := s.linkBootDir(); err != nil {
		return nil, err
	}
	if s.ImageFile != "" {
		if err := s.importImage(ctx); err != nil {
			return nil, err
		}
	}
	if s.net, err = testnet.New(ctx, o.Terminals); err != nil {
		return nil, err
	}
	if o.DHCP == DHCPProxy {
		if err := s.net.Router(ctx, s.work); err != nil {
			return nil, err
		}
	}
	if err := s.StartServer(ctx); err != nil {
		return nil, err
	}
	for i := range o.Terminals {
		t, err := s.newTerminal(i)
		if err != nil {
			return nil, err
		}
		s.terminals = append(s.terminals, t)
	}
	return s, nil
}

const workPrefix = "labswarm-classroom-"

// makeWork makes the temporary folder, on disk rather than in a RAM file system,
// and removes those of classrooms that were killed.
func makeWork() (string, error) {
	base := os.Getenv("TMPDIR")
	if base == "" {
		base = "/var/tmp"
	}
	old, err := filepath.Glob(filepath.Join(base, workPrefix+"*"))
	if err != nil {
		return "", fmt.Errorf("look for old classrooms: %w", err)
	}
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), workPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && n > 0 && !alive(n) {
			if err := os.RemoveAll(dir); err != nil {
				return "", fmt.Errorf("remove an old classroom: %w", err)
			}
		}
	}
	dir, err := os.MkdirTemp(base, fmt.Sprintf("%s%d-", workPrefix, os.Getpid()))
	if err != nil {
		return "", fmt.Errorf("make temporary folder: %w", err)
	}
	return dir, nil
}

func alive(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}

// linkBootDir makes the server's boot folder: what BootDir holds, with the kernel
// and initramfs that suit the terminals under the names that the server serves.
func (s *Session) linkBootDir() error {
	s.bootDir = filepath.Join(s.work, "boot")
	if err := os.Mkdir(s.bootDir, 0o700); err != nil {
		return fmt.Errorf("make boot folder: %w", err)
	}
	entries, err := os.ReadDir(s.BootDir)
	if err != nil {
		return fmt.Errorf("read boot files: %w; make them with scripts/bootfiles.sh and `make initramfs`", err)
	}
	// The cloud kernel of the virtual set knows virtio disks only.
	set := "virtual"
	if s.DiskBus != testvm.Virtio {
		set = "lab"
	}
	link := map[string]string{}
	for _, e := range entries {
		if !e.IsDir() {
			link[e.Name()] = filepath.Join(s.BootDir, e.Name())
		}
	}
	for _, n := range []string{"vmlinuz", "initrd.img"} {
		link[n] = filepath.Join(s.BootDir, set, n)
		if _, err := os.Stat(link[n]); err != nil {
			return fmt.Errorf("boot file missing: %w; make it with scripts/bootfiles.sh and `make initramfs`", err)
		}
	}
	delete(link, "initrd-enrol.img") // that of real PCs; the classroom's own needs `make initramfs`
	if enrol := filepath.Join(s.BootDir, set, "initrd-enrol.img"); exists(enrol) {
		link["initrd-enrol.img"] = enrol
	}
	for name, target := range link {
		if err := os.Symlink(target, filepath.Join(s.bootDir, name)); err != nil {
			return fmt.Errorf("make boot folder: %w", err)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *Session) importImage(ctx context.Context) error {
	s.say.line("importing %s as %q", s.ImageFile, s.ImageName)
	start := time.Now()
	// A classroom lasts minutes: it may fill a small machine's disk further than a server may.
	if _, err := s.admin.run(ctx, "image", "import", "--keep-free", "256MiB", s.ImageName, s.ImageFile); err != nil {
		return err
	}
	s.Image = s.ImageName
	s.say.line("imported in %.1f s", time.Since(start).Seconds())
	return nil
}

// StartServer starts the labswarm server in the LAN and waits until it answers.
func (s *Session) StartServer(ctx context.Context) error {
	if s.server != nil {
		return errors.New("start server: it runs already")
	}
	var err error
	if s.serverLog == nil {
		if s.serverLog, err = os.Create(filepath.Join(s.work, "server.log")); err != nil {
			return fmt.Errorf("make server log: %w", err)
		}
	}
	args := []string{
		"serve", "--lab-if", testnet.Bridge, "--dhcp", s.DHCP, "--state-dir", s.StateDir,
		"--boot-dir", s.bootDir, "--kernel-args", "console=ttyS0,115200",
	}
	if s.DHCP == DHCPOwn {
		args = append(args, "--dhcp-range", "10.77.0.100-10.77.0.199")
	}
	cmd := s.net.Command(context.WithoutCancel(ctx), s.Binary, args...)
	cmd.Stdout, cmd.Stderr = s.serverLog, s.serverLog
	if s.server, err = testnet.Start(cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		var info api.ServerInfo
		err := s.admin.get(ctx, api.RouteServer, &info)
		if err == nil && info.Ready {
			return nil
		}
		select {
		case <-s.server.Done():
			s.server = nil
			return fmt.Errorf("labswarm serve ended at once; it said:\n%s", s.ServerLog(8))
		case <-ctx.Done():
			return fmt.Errorf("labswarm serve did not get ready: %w (%w); it said:\n%s", ctx.Err(), err, s.ServerLog(8))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// KillServer ends the server by SIGKILL; StartServer brings it back.
func (s *Session) KillServer() error {
	if s.server == nil {
		return errors.New("kill server: it does not run")
	}
	err := s.server.Kill()
	s.server = nil
	return err
}

// ServerLog returns the last n lines that the server logged.
func (s *Session) ServerLog(n int) string {
	b, err := os.ReadFile(filepath.Join(s.work, "server.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// AddHosts makes host records for these terminals.
func (s *Session) AddHosts(ctx context.Context, terminals ...*Terminal) error {
	for _, t := range terminals {
		if !validMAC(t.vm.MAC) {
			return fmt.Errorf("terminal %s: MAC %q", t.Name, t.vm.MAC)
		}
		if _, err := s.admin.run(ctx, "host", "add", t.Name, "--room", Room, "--mac", t.vm.MAC, "--uuid", t.vm.UUID); err != nil {
			return err
		}
	}
	return nil
}

// CreateJob orders the deployment of the image to the whole room.
func (s *Session) CreateJob(ctx context.Context) (api.Job, error) {
	return s.AdminJob(ctx, "job", "create", "--image", s.Image, "--room", Room, "--confirm", Room)
}

// Job looks at a job, timelines included.
func (s *Session) Job(ctx context.Context, id uint64) (api.Job, error) {
	var job api.Job
	err := s.admin.get(ctx, fmt.Sprintf("%s/%d", api.RouteJobs, id), &job)
	return job, err
}

// Close switches the terminals off, ends the server, removes the LAN and every
// temporary file. Disks and logs that the caller asked to keep stay.
func (s *Session) Close() error {
	var errs []error
	for _, t := range s.terminals {
		errs = append(errs, t.close())
	}
	if s.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		errs = append(errs, s.server.Stop(ctx))
		cancel()
		s.server = nil
	}
	if s.net != nil {
		errs = append(errs, s.net.Close())
		s.net = nil
	}
	if s.serverLog != nil {
		errs = append(errs, s.serverLog.Close())
		s.serverLog = nil
	}
	if s.work != "" {
		errs = append(errs, os.RemoveAll(s.work))
		s.work = ""
	}
	return errors.Join(errs...)
}

// SaveLogs copies the server's and the terminals' logs to dir.
func (s *Session) SaveLogs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save logs: %w", err)
	}
	files := map[string]string{"server.log": filepath.Join(s.work, "server.log"), "dnsmasq.log": filepath.Join(s.work, "dnsmasq.log")}
	for _, t := range s.terminals {
		files[t.Name+".log"] = t.vm.SerialPath()
	}
	for name, from := range files {
		b, err := os.ReadFile(from)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("save logs: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return fmt.Errorf("save logs: %w", err)
		}
	}
	return nil
}
