package library

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// temp is a folder under construction. The lock on it tells other processes that somebody is still at work.
type temp struct {
	dir  string
	hold *os.File
}

// lock takes the library's lock, which also works between processes. It is held for short steps only.
func (l *Library) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(l.dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock image library: %w", err), f.Close())
	}
	// Closing gives the lock back; there is nothing written that a failing close could lose.
	return func() { _ = f.Close() }, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (l *Library) newTemp() (*temp, error) {
	unlock, err := l.lock() // no sweep between making the folder and locking it
	if err != nil {
		return nil, err
	}
	defer unlock()
	dir, err := os.MkdirTemp(l.dir, ".tmp-")
	if err != nil {
		return nil, err
	}
	hold, err := os.Open(dir)
	if err == nil {
		if err = flock(hold, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return &temp{dir, hold}, nil
		}
		err = errors.Join(err, hold.Close())
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

// rename publishes the folder. The image's own folder is made for the first version only now.
func (t *temp) rename(l *Library, name, version string) error {
	parent := filepath.Join(l.dir, name)
	if err := os.Mkdir(parent, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Rename(t.dir, filepath.Join(parent, version)); err != nil {
		_ = os.Remove(parent) // goes only when empty
		return err
	}
	t.dir = ""
	return errors.Join(syncDir(parent), syncDir(l.dir))
}

// discard removes the folder unless it was published.
func (t *temp) discard() error {
	var err error
	if t.dir != "" {
		err = os.RemoveAll(t.dir)
	}
	return errors.Join(err, t.hold.Close())
}

// sweep removes what crashed processes left behind.
func (l *Library) sweep() error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	ents, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range ents {
		if !e.IsDir() || !(strings.HasPrefix(e.Name(), ".tmp-") || strings.HasPrefix(e.Name(), ".trash-")) {
			continue
		}
		path := filepath.Join(l.dir, e.Name())
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		if flock(d, unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = os.RemoveAll(path)
		}
		if err := errors.Join(err, d.Close()); err != nil {
			return err
		}
	}
	return nil
}
