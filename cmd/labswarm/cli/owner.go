package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// handBack gives files that root made in a state folder of another user to that user: the service runs as labswarm, and what
// `sudo labswarm image import` made must be readable to it. It never follows a link and touches files of root only.
func (e *env) handBack() {
	if os.Geteuid() != 0 {
		return
	}
	top, err := os.Lstat(e.stateDir)
	if err != nil {
		return
	}
	owner, ok := top.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 || !top.IsDir() {
		return
	}
	err = filepath.WalkDir(e.stateDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // removed meanwhile
		}
		info, err := d.Info()
		if err != nil || !(info.Mode().IsRegular() || info.IsDir()) {
			return nil //nolint:nilerr // as above; sockets and links stay as they are
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 || (info.Mode().IsRegular() && st.Nlink > 1) {
			return nil // a second name may lie outside the folder
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
	if err != nil {
		e.hint("labswarm: give files to the service's user: %v", err)
	}
}
