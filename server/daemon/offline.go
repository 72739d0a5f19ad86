package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"labswarm/images/library"
	"labswarm/server/daemon/keeper"
	"labswarm/server/store"
)

// OpenKeeper looks after the image store of a state folder while no server runs there: it holds the state file, so that
// none can start meanwhile. make says whether a missing state file may be made; without it the state is taken as empty.
// The caller calls close. Errors carry exit codes (*Error).
func OpenKeeper(ctx context.Context, stateDir string, lib *library.Library, make bool) (k *keeper.Keeper, closeAll func() error, err error) {
	path := filepath.Join(stateDir, "labswarm.db")
	var db store.Store
	if _, err = os.Stat(path); errors.Is(err, os.ErrNotExist) && !make {
		db, err = store.NewMem(), nil
	} else {
		db, err = store.OpenSound(path)
	}
	if err != nil {
		return nil, nil, classify(err)
	}
	k, err = keeper.New(ctx, keeper.Config{Store: db, Library: lib, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, classify(errors.Join(err, db.Close()))
	}
	return k, db.Close, nil
}
