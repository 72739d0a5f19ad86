package coldplug

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Loader loads modules, each at most once.
type Loader struct {
	index *Index
	sys   string
	log   *slog.Logger
	init  func(file string) error // finit_module, or a test's recorder

	mu   sync.Mutex
	once map[string]*attempt // module file -> its one attempt
	seen map[string]bool     // modalias strings already looked at
}

type attempt struct {
	once sync.Once
	err  error
}

// New returns a loader for an index. sys is where sysfs is mounted.
func New(index *Index, sys string, log *slog.Logger) *Loader {
	l := &Loader{index: index, sys: sys, log: log, once: map[string]*attempt{}, seen: map[string]bool{}}
	l.init = l.finit
	return l
}

// Load loads a module by name, with what it depends on. A module that is part
// of the kernel or not in the initramfs is no error for a dependency the
// kernel only recommends, but is one for the name asked for.
func (l *Loader) Load(name string) error {
	name = norm(name)
	file, ok := l.index.files[name]
	if !ok {
		if l.index.builtin[name] {
			return nil
		}
		return fmt.Errorf("load module %s: not in this initramfs: %w", name, fs.ErrNotExist)
	}
	for _, pre := range l.index.soft[name] {
		if err := l.Load(pre); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("module wanted first does not load", "module", pre, "for", name, "err", err)
		}
	}
	// modules.dep lists the closure, the nearest first: load from its end.
	deps := l.index.deps[file]
	for _, dep := range slices.Backward(deps) {
		if err := l.loadFile(dep); err != nil {
			return err
		}
	}
	return l.loadFile(file)
}

func (l *Loader) loadFile(file string) error {
	l.mu.Lock()
	a := l.once[file]
	if a == nil {
		a = &attempt{}
		l.once[file] = a
	}
	l.mu.Unlock()
	a.once.Do(func() {
		if err := l.init(file); err != nil {
			a.err = fmt.Errorf("load module %s: %w", nameOf(file), err)
		}
	})
	return a.err
}

// finit hands the file to the kernel as it is, so that its signature stays.
// Debian 12's modules are plain, those of Debian 13 are unpacked by the kernel.
func (l *Loader) finit(file string) (err error) {
	f, err := os.Open(filepath.Join(l.index.dir, file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// modaliases returns the modalias string of every device.
func (l *Loader) modaliases() []string {
	var out []string
	// Devices come and go while the tree is walked: an unreadable entry is one
	// that has just left.
	_ = filepath.WalkDir(filepath.Join(l.sys, "devices"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" {
			return nil //nolint:nilerr // see above
		}
		if b, err := os.ReadFile(p); err == nil {
			if s := strings.TrimSpace(string(b)); s != "" {
				out = append(out, s)
			}
		}
		return nil
	})
	return out
}

// round loads the modules of every device not seen before and returns how many
// modules it tried.
func (l *Loader) round() int {
	todo := map[string]bool{}
	for _, a := range l.modaliases() {
		for _, m := range l.news(a) {
			todo[m] = true
		}
	}
	l.loadAll(todo)
	return len(todo)
}

// news returns the modules for a modalias the first time it is seen.
func (l *Loader) news(modalias string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[modalias] {
		return nil
	}
	l.seen[modalias] = true
	return l.index.Match(modalias)
}

func (l *Loader) loadAll(names map[string]bool) {
	var wg sync.WaitGroup
	for name := range names {
		wg.Go(func() {
			if err := l.Load(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.log.Warn("module does not load", "module", name, "err", err)
			}
		})
	}
	wg.Wait()
}

// Settle loads modules until no new device has appeared for quiet after the
// last load ended: a PCI device brings virtio_pci, which brings a virtio
// device, which brings virtio_net. It ends early when ctx does and never runs
// longer than limit.
func (l *Loader) Settle(ctx context.Context, quiet, limit time.Duration) {
	end := time.Now().Add(limit)
	last := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Since(last) < quiet && time.Now().Before(end) {
		if l.round() > 0 {
			last = time.Now()
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// NoDriver lists network and storage devices that no driver has taken, for the
// "missing driver" report; at most 32.
func (l *Loader) NoDriver() []string {
	var out []string
	_ = filepath.WalkDir(filepath.Join(l.sys, "devices"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" || len(out) >= 32 {
			return nil //nolint:nilerr // a device that has just left
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil //nolint:nilerr // a device that has just left
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(p), "driver")); err == nil {
			return nil
		}
		if s := strings.TrimSpace(string(b)); wanted(s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
		return nil
	})
	slices.Sort(out)
	return out
}

// wanted tells whether a device without driver is worth a report: PCI storage
// (class 01) and network (class 02), and virtio devices of these kinds.
func wanted(modalias string) bool {
	switch {
	case strings.HasPrefix(modalias, "pci:"):
		return strings.Contains(modalias, "bc01sc") || strings.Contains(modalias, "bc02sc")
	case strings.HasPrefix(modalias, "virtio:"):
		// Virtio 1.2, section 5: 1 network, 2 block, 8 SCSI host.
		return strings.Contains(modalias, "d00000001v") || strings.Contains(modalias, "d00000002v") || strings.Contains(modalias, "d00000008v")
	}
	return false
}
