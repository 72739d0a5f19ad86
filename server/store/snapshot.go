package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	snapshotKeep   = 3
	snapshotPrefix = "labswarm-"
	snapshotSuffix = ".db"
)

// SaveSnapshot writes a copy of s into dir (made if missing) and keeps the
// newest three. The copy appears complete or not at all.
func SaveSnapshot(ctx context.Context, s Store, dir string, now time.Time) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make snapshot folder: %w", err)
	}
	final := filepath.Join(dir, snapshotPrefix+now.UTC().Format("20060102T150405.000000000")+snapshotSuffix)
	tmp, err := os.CreateTemp(dir, ".tmp-snapshot-*")
	if err != nil {
		return "", fmt.Errorf("make snapshot: %w", err)
	}
	err = errors.Join(s.Snapshot(ctx, tmp), tmp.Sync())
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), final)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("write snapshot %s: %w", final, err), os.Remove(tmp.Name()))
	}
	if err := syncDir(dir); err != nil {
		return "", err
	}
	for i, old := range Snapshots(dir) {
		if i < snapshotKeep {
			continue
		}
		if err := os.Remove(old); err != nil {
			return final, fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	return final, nil
}

// Snapshots lists the snapshots of dir, newest first.
func Snapshots(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // no folder, no snapshots
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), snapshotPrefix) && strings.HasSuffix(e.Name(), snapshotSuffix) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// copyFile copies src to dst durably.
func copyFile(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Sync(), out.Close())
	if err != nil {
		return fmt.Errorf("restore snapshot %s to %s: %w", src, dst, err)
	}
	return syncDir(filepath.Dir(dst))
}

// syncDir makes renames and creations in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// lockHolder finds who holds the flock on path in /proc/locks, "" = not known.
func lockHolder(path string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return ""
	}
	raw, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	suffix := ":" + strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(raw)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 08:01:123 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], suffix) {
			continue
		}
		name, err := os.ReadFile("/proc/" + f[4] + "/comm")
		if err != nil {
			return "pid " + f[4]
		}
		return strings.TrimSpace(string(name)) + " (pid " + f[4] + ")"
	}
	return ""
}
