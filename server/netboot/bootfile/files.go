// Package bootfile holds everything the boot ports serve: the boot files of the
// state directory, read once into RAM, and the boot scripts, rendered per
// answer. There is no file system behind the ports: a name is in the map or it
// does not exist. The package opens no socket and takes no decision. Called by
// server/netboot and its TFTP and HTTP parts; Load is called by server/daemon.
package bootfile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names with a meaning of their own. The file next to shim must be called
// grubx64.efi: shim asks for that name in its own folder.
const (
	NameShim     = "shimx64.efi"
	NameGRUB     = "grubx64.efi"
	NameUndionly = "undionly.kpxe"
	NameKernel   = "vmlinuz"
	NameInitrd   = "initrd.img"
	// NameEnrolInitrd is the initramfs of the enrol profile: an agent that
	// cannot write disks. It is all that unknown PCs may fetch in learn mode.
	NameEnrolInitrd = "initrd-enrol.img"
)

// maxFileBytes bounds one boot file; the largest real one (a broad initramfs)
// is below 20 MiB, and all of them live in RAM.
const maxFileBytes = 256 << 20

// origin says which file is needed and where an admin gets it.
type origin struct {
	name     string
	source   string // package or command, for the error text
	required bool
}

func origins() []origin {
	return []origin{
		{NameUndionly, "Debian package ipxe", true},
		{NameShim, "Debian package shim-signed", true},
		{NameGRUB, "Debian package grub-efi-amd64-signed, its grubnetx64.efi.signed", true},
		{NameKernel, "Debian package linux-image-amd64 or linux-image-cloud-amd64; made by `make initramfs`", true},
		{NameInitrd, "made by `make initramfs`", true},
		{NameEnrolInitrd, "made by `make initramfs`; learn mode needs it", false},
		{"undionly.kkpxe", "Debian package ipxe", false},
		{"ipxe.pxe", "Debian package ipxe", false},
		{"snponly.efi", "Debian package ipxe", false},
		{"ipxe.efi", "Debian package ipxe", false},
	}
}

// File is one boot file in RAM.
type File struct {
	Name   string
	Data   []byte   // never written to after Load
	SHA256 [32]byte // of Data as served, pins included
}

// Files is the fixed set of boot files. It is read-only and may be used from
// many goroutines.
type Files struct {
	byName map[string]File
}

// MissingError says which required boot files a folder lacks.
type MissingError struct {
	Dir   string
	Names []string // "shimx64.efi (Debian package shim-signed)"
}

// Error names each missing file and its origin.
func (e *MissingError) Error() string {
	return fmt.Sprintf("boot files missing in %s: %s: copy them there or run `make initramfs`, then start again",
		e.Dir, strings.Join(e.Names, "; "))
}

// Load reads the boot files of dir. pins is the pins.json document (see
// PinsJSON); it is put in front of every initramfs as a small archive of its
// own, so that keys can roll without a rebuild. Beside the fixed names, every
// vmlinuz* and initrd*.img is loaded, for per-host choices. A missing required
// file gives a *MissingError that lists all of them.
func Load(dir string, pins []byte) (*Files, error) {
	front, err := pinsArchive(pins)
	if err != nil {
		return nil, err
	}
	f := &Files{byName: map[string]File{}}
	var missing []string
	for _, o := range origins() {
		switch err := f.add(dir, o.name, front); {
		case errors.Is(err, os.ErrNotExist) && o.required:
			missing = append(missing, fmt.Sprintf("%s (%s)", o.name, o.source))
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	if len(missing) > 0 {
		return nil, &MissingError{Dir: dir, Names: missing}
	}
	more, err := extraNames(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range more {
		if _, have := f.byName[name]; have {
			continue
		}
		if err := f.add(dir, name, front); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// extraNames lists the per-host kernels and initramfs flavours of dir.
func extraNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list boot files in %q: %w", dir, err)
	}
	var out []string
	for _, e := range entries {
		if NeedsSession(e.Name()) && cleanName(e.Name()) && !e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// add reads one file. Symbolic links are followed: Debian's packages ship them.
func (f *Files) add(dir, name string, front []byte) (err error) {
	path := filepath.Join(dir, name)
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open boot file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	st, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read boot file %q: %w", path, err)
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxFileBytes {
		return fmt.Errorf("read boot file %q: %s of %d bytes; want a regular file of 1 to %d bytes: put the right file there",
			path, st.Mode().Type(), st.Size(), int64(maxFileBytes))
	}
	data := make([]byte, 0, st.Size()+int64(len(front)))
	if isInitrd(name) {
		data = append(data, front...)
	}
	body := make([]byte, st.Size())
	if _, err := io.ReadFull(file, body); err != nil {
		return fmt.Errorf("read boot file %q: %w", path, err)
	}
	data = append(data, body...)
	f.byName[name] = File{Name: name, Data: data, SHA256: sha256.Sum256(data)}
	return nil
}

// Get returns the boot file with exactly this name.
func (f *Files) Get(name string) (File, bool) {
	file, ok := f.byName[name]
	return file, ok
}

// List returns all files by name, for the log and for doctor.
func (f *Files) List() []File {
	out := make([]File, 0, len(f.byName))
	for _, file := range f.byName {
		out = append(out, file)
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Digest returns the SHA-256 as lower-case hexadecimal text.
func (f File) Digest() string { return hex.EncodeToString(f.SHA256[:]) }

// NeedsSession reports whether a file carries a decision: kernels and
// initramfs are served only to an address whose session was answered Agent, or
// Enrol (see ForEnrol).
// shim, GRUB and iPXE are the same for all and carry none.
func NeedsSession(name string) bool {
	return strings.HasPrefix(name, NameKernel) || isInitrd(name)
}

// ForEnrol reports whether a session that was answered Enrol may fetch name: a
// kernel and the enrol initramfs, never the agent that writes.
func ForEnrol(name string) bool {
	return strings.HasPrefix(name, NameKernel) || name == NameEnrolInitrd
}

// IsInitrd reports whether fetching name counts as a soft boot attempt.
func IsInitrd(name string) bool { return isInitrd(name) }

func isInitrd(name string) bool {
	return strings.HasPrefix(name, "initrd") && strings.HasSuffix(name, ".img")
}

// cleanName reports whether a name may stand in a script and in a URL.
func cleanName(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '.' {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) }) < 0
}

func nameRune(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '_' || r == '-'
}
