package library

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"labswarm/internal/units"
)

// KeepFree changes how many bytes of the file system stay free for the rest of the server. Without it these are 5 % of
// its size, or 10 GiB where that is at most a tenth of it. Call it before anything else; 0 fills the disk.
func (l *Library) KeepFree(bytes int64) { l.keep = max(0, bytes) }

// checkSpace refuses what would leave the server's own file system too full to work.
func (l *Library) checkSpace(need int64) error { return l.checkSpaceIn(l.dir, need) }

// checkSpaceIn is checkSpace for another folder.
func (l *Library) checkSpaceIn(dir string, need int64) error {
	free, reserve, err := l.spaceIn(dir)
	if err != nil {
		return err
	}
	if free-reserve < need {
		return &NoSpaceError{Dir: dir, Need: need, Free: free, Reserve: reserve}
	}
	return nil
}

// space returns the free bytes and those to keep.
func (l *Library) space() (free, reserve int64, err error) { return l.spaceIn(l.dir) }

func (l *Library) spaceIn(dir string) (free, reserve int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("find the free space of %q: %w", dir, err)
	}
	total := int64(st.Blocks) * st.Bsize
	reserve = l.keep
	if reserve < 0 {
		reserve = defaultKeep(total)
	}
	return int64(st.Bavail) * st.Bsize, reserve, nil
}

// defaultKeep is what stays free of a file system of total bytes: 5 %, or up to 10 GiB where that is at most a tenth.
func defaultKeep(total int64) int64 { return max(total/20, min(10*units.GiB, total/10)) }

// noSpace turns a full file system in mid-write into the error that names both numbers.
func (l *Library) noSpace(err error, need int64) error { return l.noSpaceIn(l.dir, err, need) }

func (l *Library) noSpaceIn(dir string, err error, need int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	free, reserve, err2 := l.spaceIn(dir)
	if err2 != nil {
		return err
	}
	return &NoSpaceError{Dir: dir, Need: need, Free: free, Reserve: reserve}
}

// room watches the free space while a long write goes on: others write to the same disk.
type room struct {
	lib  *Library
	need atomic.Int64 // bytes still to come, at most
	due  atomic.Int64 // bytes until the next look
}

const roomEvery = 64 * units.MiB

func (l *Library) newRoom(need int64) *room {
	r := &room{lib: l}
	r.need.Store(need)
	return r
}

// take books n bytes that were written, and fails when the reserve has been touched.
func (r *room) take(n int64) error {
	need := max(0, r.need.Add(-n))
	if r.due.Add(-n) >= 0 {
		return nil
	}
	r.due.Store(roomEvery)
	free, reserve, err := r.lib.space()
	if err != nil {
		return err
	}
	if free < reserve {
		return &NoSpaceError{Dir: r.lib.dir, Need: need, Free: free, Reserve: reserve}
	}
	return nil
}
