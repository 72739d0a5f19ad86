package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// prefix starts the name of every namespace this package makes:
// prefix PID "-" START "-" N ["-r"], PID and START (clock ticks since boot, field
// 22 of /proc/PID/stat) naming the owner beyond doubt.
const prefix = "labswarm-"

// sweep removes the namespaces of owners that died without Close.
func sweep(ctx context.Context) error {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	for _, e := range entries {
		if !stale(e.Name()) {
			continue
		}
		if err := remove(ctx, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// stale reports whether name is one of ours and its owner is dead. Names that do
// not parse are someone else's.
func stale(name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	f := strings.Split(rest, "-")
	if len(f) < 3 || len(f) > 4 {
		return false
	}
	pid, err1 := strconv.Atoi(f[0])
	start, err2 := strconv.ParseInt(f[1], 10, 64)
	if err1 != nil || err2 != nil || pid <= 0 {
		return false
	}
	now, err := startTime(pid)
	return err != nil || now != start
}

// startTime is when process pid started, in clock ticks since boot (proc(5)).
func startTime(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	// Field 2 is the command in brackets and may hold blanks.
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return 0, fmt.Errorf("read start time of process %d: unexpected line %q", pid, b)
	}
	t, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return t, nil
}
