package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/internal/units"
)

func checkClock(_ context.Context, cfg *Config) []api.Check {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	return []api.Check{judgeClock(time.Now(), cfg.Built, err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0)}
}

func judgeClock(now, built time.Time, synced bool) api.Check {
	zone, _ := now.Zone()
	text := now.Format("2006-01-02 15:04") + " " + zone
	switch {
	case now.Before(built):
		return fail("clock", text+" is before this program was built", "set the clock; is the battery of this machine empty?")
	case !synced:
		return warn("clock", text+", not synchronised", "systemctl enable --now systemd-timesyncd (or chrony): schedules follow this clock")
	}
	return ok("clock", "%s, synchronised", text)
}

func checkLimits(_ context.Context, cfg *Config) []api.Check {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return []api.Check{warn("files", err.Error(), "look at LimitNOFILE= of the unit")}
	}
	return []api.Check{judgeFiles(l.Max, cfg.Hosts)}
}

// judgeFiles: a PC takes some connections to agents' port, seed and console.
func judgeFiles(limit uint64, hosts int) api.Check {
	want := uint64(1024 + 8*hosts)
	if limit < want {
		return warn("files", fmt.Sprintf("at most %d files may be open; %d PCs may need %d", limit, hosts, want), "LimitNOFILE=65536 in the unit")
	}
	return ok("files", "%d files may be open", limit)
}

func checkSpace(_ context.Context, cfg *Config) []api.Check {
	var st unix.Statfs_t
	if err := unix.Statfs(cfg.StateDir, &st); err != nil {
		return []api.Check{fail("space", fmt.Sprintf("look at %s: %v", cfg.StateDir, err), "make the state folder, and give it to the service's user")}
	}
	return []api.Check{judgeSpace(cfg.StateDir, int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize)}
}

func judgeSpace(dir string, free, total int64) api.Check {
	text := fmt.Sprintf("%s of %s are free in %s", units.FormatBytes(free), units.FormatBytes(total), dir)
	switch {
	case free < 256<<20:
		return fail("space", text, "make room: `labswarm image gc` says what nobody needs")
	case total > 0 && free < total/20:
		return warn("space", text, "imports stop below 5 %: `labswarm image gc` says what nobody needs")
	}
	return ok("space", "%s", text)
}

// checkFsync measures what each promise to a PC costs: one small durable write.
func checkFsync(ctx context.Context, cfg *Config) []api.Check {
	took, err := fsyncs(ctx, cfg.StateDir)
	if err != nil {
		return []api.Check{fail("fsync", err.Error(), "the server must be able to write its state folder")}
	}
	return []api.Check{judgeFsync(took)}
}

func fsyncs(ctx context.Context, dir string) (median time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, fmt.Errorf("write a file in the state folder: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var all []time.Duration
	for i := range 9 {
		begun := time.Now()
		if _, err := f.WriteAt(make([]byte, 4096), int64(i)*4096); err != nil {
			return 0, fmt.Errorf("write a file in the state folder: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("write a file in the state folder: %w", err)
		}
		all = append(all, time.Since(begun))
		if ctx.Err() != nil {
			break
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

func judgeFsync(median time.Duration) api.Check {
	text := fmt.Sprintf("a durable write takes %.1f ms", float64(median.Microseconds())/1000)
	switch {
	case median > 200*time.Millisecond:
		return fail("fsync", text, "put the state on an SSD: PCs that boot together would wait for each other")
	case median > 30*time.Millisecond:
		return warn("fsync", text, "an SSD takes 1 to 10 ms; is another program filling this disk?")
	}
	return ok("fsync", "%s", text)
}

// checkState looks at the copies of the state. Without a server its file is not opened.
func checkState(_ context.Context, cfg *Config) []api.Check {
	if !cfg.Running {
		return nil
	}
	var out []api.Check
	if !cfg.Ballast {
		out = append(out, warn("ballast", "there is no room for the ballast file of the state", "make 256 MiB free: it lets running jobs end on a full disk"))
	}
	if cfg.Snapshot.IsZero() {
		return append(out, ok("state", "no copy of the state yet: the first is made within ten minutes of a change"))
	}
	return append(out, ok("state", "the newest copy of the state is %s old", since(cfg.Snapshot)))
}

// checkBoot compares the boot folder with what is served, and looks for our keys in each initramfs.
func checkBoot(_ context.Context, cfg *Config) []api.Check {
	if !cfg.Running {
		if _, err := os.Stat(filepath.Join(cfg.BootDir, "shimx64.efi")); err != nil {
			return []api.Check{fail("boot", err.Error(), "make initramfs, or name the folder with boot.dir")}
		}
		return []api.Check{ok("boot", "boot files are in %s; what is in them is checked when the server runs", cfg.BootDir)}
	}
	var stale, bare, names []string
	for _, f := range cfg.Files {
		names = append(names, f.Name)
		raw, err := os.ReadFile(filepath.Join(cfg.BootDir, filepath.Base(f.Name)))
		if err != nil || !bytes.HasSuffix(f.Served, raw) || (len(raw) != len(f.Served) && !strings.HasPrefix(f.Name, "initrd")) {
			stale = append(stale, f.Name)
		}
		if strings.HasPrefix(f.Name, "initrd") && (len(cfg.Pins) == 0 || !containsEarly(f.Served, cfg.Pins)) {
			bare = append(bare, f.Name)
		}
	}
	var out []api.Check
	if len(stale) > 0 {
		out = append(out, warn("boot", "changed on the disk since the start: "+strings.Join(stale, ", "), "restart the server: it serves the old ones until then"))
	} else {
		out = append(out, ok("boot", "%s are served as they are in %s", strings.Join(names, ", "), cfg.BootDir))
	}
	if len(bare) > 0 {
		return append(out, fail("pins", "our key is not in "+strings.Join(bare, ", ")+": agents would refuse this server", "restart the server; if it stays, please report it"))
	}
	return append(out, ok("pins", "each initramfs holds this server's keys"))
}

// containsEarly: our keys stand in front of the initramfs.
func containsEarly(data, pins []byte) bool {
	return strings.Contains(string(data[:min(len(data), 64<<10)]), string(pins))
}

func checkImages(ctx context.Context, cfg *Config) []api.Check {
	if cfg.Images == nil {
		return nil
	}
	list, err := cfg.Images(ctx)
	if err != nil {
		return []api.Check{fail("images", err.Error(), "look at the image store")}
	}
	return judgeImages(list, cfg.Scrub, time.Now())
}

func judgeImages(list []Image, every time.Duration, now time.Time) []api.Check {
	var out []api.Check
	late := 0
	for _, i := range list {
		switch {
		case i.Err != "":
			out = append(out, fail("images", i.Name+" cannot be used: "+i.Err, "`labswarm image verify "+i.Name+"`, or import it again"))
		case i.Quarantine != "":
			out = append(out, fail("images", i.Name+" is in quarantine: "+i.Quarantine, "import it again, and look at the server's disk"))
		case every > 0 && now.Sub(i.Checked) > 2*every+48*time.Hour:
			late++
		}
	}
	if late > 0 {
		out = append(out, warn("scrub", fmt.Sprintf("%d image versions were not read again for long", late), "leave the server on at night, or `labswarm image scrub`"))
	}
	if len(out) == 0 {
		return []api.Check{ok("images", "%d versions, signed and sound when last looked at", len(list))}
	}
	return out
}
