package library

import (
	"os"
	"syscall"
)

// fileBlocks returns the length of a file and the bytes it takes on disk.
func fileBlocks(path string) (size, onDisk int64, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	return st.Size(), sys.Blocks * 512, nil
}
