package testnet

import (
	"context"
	"fmt"
	"os"
)

// OwnName is a namespace name of this process, unique by suffix (letters and
// digits): Sweep of a later process removes it when this one died without
// doing so. For callers that build their own network (the swarm bench).
func OwnName(suffix string) (string, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), start, suffix), nil
}

// Sweep removes the namespaces of processes that died without removing them.
func Sweep(ctx context.Context) error { return sweep(ctx) }

// Remove kills what runs in a namespace and deletes it; one that is gone is fine.
func Remove(ctx context.Context, name string) error { return remove(ctx, name) }

// Stale reports whether name was made by OwnName of a process that is gone.
// Names of another form are someone else's.
func Stale(name string) bool { return stale(name) }
