package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// BallastBytes is how much room is kept for transitions on a disk that others fill: some 100,000 of them.
const BallastBytes = 64 << 20

// ballast is a file that holds room on the state's disk. It goes when an update finds the disk full, so that what has begun
// can still be committed.
type ballast struct {
	mu   sync.Mutex
	path string
	size int64
	gone func() // told when it was removed
}

// SetBallast names the ballast file and makes it, if the disk has room. told is called, without a lock held, whenever the
// file was removed for an update. Call it before the store is shared.
func (s *Bolt) SetBallast(path string, size int64, told func()) error {
	s.ballast.path, s.ballast.size, s.ballast.gone = path, size, told
	return s.FillBallast()
}

// FillBallast makes the ballast file again when the disk has four times its size free. It does nothing when the file is there.
func (s *Bolt) FillBallast() error {
	b := &s.ballast
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path == "" {
		return nil
	}
	if st, err := os.Stat(b.path); err == nil && st.Size() == b.size {
		return nil
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(s.path, &fsys); err != nil {
		return fmt.Errorf("look at the state's disk: %w", err)
	}
	if int64(fsys.Bavail)*fsys.Bsize < 4*b.size {
		return nil // it would only fill the disk itself
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make ballast file: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, b.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, b.size)) // a filesystem that cannot reserve
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("make ballast file %s: %w", b.path, err), os.Remove(b.path))
	}
	return nil
}

// dropBallast removes the file and reports whether there was one.
func (s *Bolt) dropBallast() bool {
	b := &s.ballast
	b.mu.Lock()
	if b.path == "" {
		b.mu.Unlock()
		return false
	}
	err := os.Remove(b.path)
	b.mu.Unlock()
	if err != nil {
		return false // it is gone already, or the disk is beyond help: the caller tells the first error
	}
	if b.gone != nil {
		b.gone()
	}
	return true
}

// HasBallast reports whether the room is still held; true when none was asked for.
func (s *Bolt) HasBallast() bool {
	s.ballast.mu.Lock()
	defer s.ballast.mu.Unlock()
	if s.ballast.path == "" {
		return true
	}
	_, err := os.Stat(s.ballast.path)
	return !errors.Is(err, fs.ErrNotExist)
}

func diskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
