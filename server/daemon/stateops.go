package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const stateFile = "labswarm.db"

// Snapshots lists the copies of the state in a state folder, newest first.
func Snapshots(stateDir string) ([]api.Snapshot, error) {
	dir := filepath.Join(stateDir, "snapshots")
	if _, err := os.ReadDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	out := []api.Snapshot{}
	for _, path := range store.Snapshots(dir) {
		st, err := os.Stat(path)
		if err != nil {
			continue // the server removed it meanwhile
		}
		out = append(out, api.Snapshot{Name: filepath.Base(path), Path: path, Bytes: st.Size(), Time: st.ModTime().UTC()})
	}
	return out, nil
}

// SnapshotState copies the state of a folder in which no server runs. Errors carry exit codes.
func SnapshotState(ctx context.Context, stateDir string) (api.Snapshot, error) {
	path := filepath.Join(stateDir, stateFile)
	if _, err := os.Stat(path); err != nil {
		return api.Snapshot{}, fmt.Errorf("copy the state: %w", err)
	}
	db, err := store.OpenSound(path)
	if err != nil {
		return api.Snapshot{}, classify(err)
	}
	out, err := saveSnapshot(ctx, db, filepath.Join(stateDir, "snapshots"))
	return out, errors.Join(err, db.Close())
}

func saveSnapshot(ctx context.Context, db store.Store, dir string) (api.Snapshot, error) {
	now := time.Now()
	path, err := store.SaveSnapshot(ctx, db, dir, now)
	if err != nil {
		return api.Snapshot{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return api.Snapshot{}, fmt.Errorf("look at the snapshot: %w", err)
	}
	return api.Snapshot{Name: filepath.Base(path), Path: path, Bytes: st.Size(), Time: now.UTC()}, nil
}

// RestoreState puts a snapshot, by name or path, in the place of the state. No server may run. It returns where the present
// state was put, "" = there was none.
func RestoreState(stateDir, snapshot string) (aside string, err error) {
	path := snapshot
	if !strings.ContainsRune(snapshot, filepath.Separator) {
		path = filepath.Join(stateDir, "snapshots", snapshot)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("restore the state: %w (`labswarm state ls` lists the copies)", err)
	}
	rec, err := store.Restore(filepath.Join(stateDir, stateFile), path, time.Now())
	if err != nil {
		return "", classify(err)
	}
	return rec.Damaged, nil
}

// Snapshot implements httpapi.OpsService.
func (a adminService) Snapshot(ctx context.Context) (api.Snapshot, error) {
	return saveSnapshot(ctx, a.s.store, a.s.snapshots())
}
