package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mounted returns what is mounted or swapped on, by device number ("8:1") and
// by device path; the value says on what.
func (s System) mounted() (map[string]string, error) {
	use := map[string]string{}
	b, err := os.ReadFile(filepath.Join(s.Proc, "self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		// proc(5): id parent major:minor root mountpoint options fields - type source options
		head, tail, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 5 || len(g) < 2 {
			continue
		}
		use[f[2]] = "mounted on " + f[4]
		if strings.HasPrefix(g[1], "/") { // some file systems have a number of their own
			use[g[1]] = "mounted on " + f[4]
		}
	}
	b, err = os.ReadFile(filepath.Join(s.Proc, "swaps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read swaps: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "/") {
			use[f[0]] = "swap"
		}
	}
	return use, nil
}

// inUse says what holds the disk or one of its partitions; "" means nothing.
func (s System) inUse(name string, use map[string]string) string {
	dir := filepath.Join(s.Sys, "block", name)
	names := []string{name}
	list, err := os.ReadDir(dir)
	if err != nil {
		return "unreadable in sysfs"
	}
	for _, e := range list {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "partition")); err == nil {
			names = append(names, e.Name())
		}
	}
	for i, n := range names {
		p := dir
		if i > 0 {
			p = filepath.Join(dir, n)
		}
		if num, err := os.ReadFile(filepath.Join(p, "dev")); err == nil {
			if why := use[strings.TrimSpace(string(num))]; why != "" {
				return n + " " + why
			}
		}
		if why := use[filepath.Join(s.Dev, n)]; why != "" {
			return n + " " + why
		}
		if holders, err := os.ReadDir(filepath.Join(p, "holders")); err == nil && len(holders) > 0 {
			return n + " held by " + holders[0].Name()
		}
	}
	return ""
}
