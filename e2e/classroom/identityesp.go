package classroom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// compareESP compares the files of an EFI partition that got a host file: the boot
// sector and every file must be equal, host.json must name the PC, fsck.vfat must
// find nothing.
func compareESP(ctx context.Context, image, disk, host string, p span) (n int, err error) {
	dir, err := os.MkdirTemp("", "labswarm-esp-")
	if err != nil {
		return 0, fmt.Errorf("compare EFI partition: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	trees := map[string]map[string]string{}
	for _, file := range []string{image, disk} {
		to := filepath.Join(dir, strconv.Itoa(len(trees)))
		if err := os.Mkdir(to, 0o700); err != nil {
			return 0, fmt.Errorf("compare EFI partition: %w", err)
		}
		cmd := exec.CommandContext(ctx, "mcopy", "-s", "-i", fmt.Sprintf("%s@@%d", file, p.from), "::*", to)
		cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("compare EFI partition: mcopy: %w: %s", err, out)
		}
		if trees[file], err = readFiles(to); err != nil {
			return 0, fmt.Errorf("compare EFI partition: %w", err)
		}
	}
	var said struct {
		Host string `json:"host"`
	}
	const hostFile = "labswarm/host.json"
	if err := json.Unmarshal([]byte(trees[disk][hostFile]), &said); err != nil {
		return 0, fmt.Errorf("/%s says %q: %w", hostFile, trees[disk][hostFile], err)
	}
	if said.Host != host {
		return 0, fmt.Errorf("/%s says host %q, not %q", hostFile, said.Host, host)
	}
	delete(trees[disk], hostFile)
	if !maps.Equal(trees[image], trees[disk]) {
		return 0, fmt.Errorf("its files are %v; in the image %v", slices.Sorted(maps.Keys(trees[disk])), slices.Sorted(maps.Keys(trees[image])))
	}
	return len(trees[image]), checkCopy(ctx, disk, p, "fsck.vfat", "-n")
}

// readFiles returns the content of every file below dir.
func readFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		files[strings.TrimPrefix(p, dir+"/")] = string(b)
		return err
	})
	return files, err
}

// checkCopy runs a filesystem's checker on a copy of the partition.
func checkCopy(ctx context.Context, disk string, p span, name string, args ...string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	return withPart(io.ReaderAt(f), p, func(file string) error {
		out, err := exec.CommandContext(ctx, name, append(args, file)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s finds errors: %s", name, strings.TrimSpace(string(out)))
		}
		return nil
	})
}
