// Package library is the store of golden images: import of raw disks, listing, reading of pieces, verification.
//
// A version is a folder that is complete or does not exist: it is built as .tmp-*, synced and renamed. Versions are
// never changed. The package knows nothing of hosts, jobs or networks; the CLI, the daemon and the seeder call it.
// Layout and formats are specified in docs/IMAGE-FORMAT.md.
package library

import (
	"cmp"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"labswarm/images/manifest"
)

// Library is one folder of images. It is safe for concurrent use, also by several processes.
type Library struct {
	dir    string
	key    ed25519.PrivateKey // nil = makes no versions
	copies bool               // takes versions made elsewhere, and removes them
	pubs   []ed25519.PublicKey
	keep   int64 // bytes to keep free, see KeepFree; < 0 = by the size of the file system
}

// Open opens the library in dir. key signs new versions; with a nil key the library is read only and a missing
// folder reads as empty. Versions must be signed by key or by one of pubs. What a crashed import left behind is
// removed, unless the import still runs in another process.
func Open(dir string, key ed25519.PrivateKey, pubs []ed25519.PublicKey) (*Library, error) {
	l := &Library{dir: dir, key: key, pubs: slices.Clone(pubs), keep: -1}
	if key == nil {
		return l, nil
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("open image library %q: signing key of %d bytes; want %d", dir, len(key), ed25519.PrivateKeySize)
	}
	if pub, ok := key.Public().(ed25519.PublicKey); ok {
		l.pubs = append(l.pubs, pub)
	}
	return l, l.prepare()
}

// OpenCopies opens a library that holds copies of versions made elsewhere, signed by one of pubs: Receive adds them.
func OpenCopies(dir string, pubs []ed25519.PublicKey) (*Library, error) {
	l := &Library{dir: dir, copies: true, pubs: slices.Clone(pubs), keep: -1}
	return l, l.prepare()
}

// prepare makes the folder and removes what crashed processes left behind.
func (l *Library) prepare() error {
	// Images hold password hashes and host secrets: nobody but the owner reads them.
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("open image library: %w", err)
	}
	if err := l.sweep(); err != nil {
		return fmt.Errorf("open image library %q: %w", l.dir, err)
	}
	return nil
}

// VersionInfo is one line of a listing. Sizes are bytes.
type VersionInfo struct {
	Name           string    `json:"name"`
	Version        string    `json:"version"`
	Base           string    `json:"base"` // the version it was made on, "" = none
	Latest         bool      `json:"latest"`
	Created        time.Time `json:"created"`
	DiskSize       int64     `json:"disk_size"`
	MinSize        int64     `json:"min_size"`
	UsedBytes      int64     `json:"used_bytes"`
	ShippedBytes   int64     `json:"shipped_bytes"`   // data cells times cell size
	AllocatedBytes int64     `json:"allocated_bytes"` // what the version takes on this server
	Cell           int64     `json:"cell"`
	FrameBytes     int64     `json:"frame_bytes"`            // of the compressed cells beside the image, 0 = there are none
	WireBytes      int64     `json:"wire_bytes"`             // one copy on the wire: compressed cells where they are worth it
	FramesErr      string    `json:"frames_error,omitempty"` // why there are no compressed cells though there should be
	DataCells      int       `json:"data_cells"`
	ZeroCells      int64     `json:"zero_cells"`
	Label          string    `json:"label"`
	Boot           string    `json:"boot"`
	OSHint         string    `json:"os_hint"`
	InfoHash       string    `json:"infohash"`
	Digest         string    `json:"manifest_digest"` // hex SHA-256 of manifest.json
	Forced         []string  `json:"forced"`
	Err            string    `json:"error,omitempty"` // why the version cannot be used
}

// List returns all versions, by name and then oldest first. A damaged version is listed with Err set.
func (l *Library) List() ([]VersionInfo, error) {
	names, err := l.names()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := []VersionInfo{}
	for _, name := range names {
		versions, err := l.versions(name)
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		for i, v := range versions {
			info := l.info(name, v)
			info.Latest = i == len(versions)-1
			out = append(out, info)
		}
	}
	return out, nil
}

func (l *Library) info(name, version string) VersionInfo {
	info := VersionInfo{Name: name, Version: version}
	v, err := l.open(name, version)
	if err != nil {
		info.Err = err.Error()
		return info
	}
	m := v.man
	digest := v.Digest()
	info.Base, info.Digest = m.Base, hex.EncodeToString(digest[:])
	info.Created, info.DiskSize, info.MinSize, info.Cell = m.Created, m.Disk.Size, m.Disk.MinSize, m.Cell
	info.DataCells, info.ZeroCells, info.ShippedBytes = m.Pieces(), m.ZeroCount(), m.ShippedBytes()
	info.UsedBytes, info.Label, info.Boot, info.OSHint = manifest.Sum(m.Used()), m.Disk.Label, m.Boot, m.OSHint
	info.InfoHash, info.Forced = m.InfoHash, m.Forced
	info.FrameBytes, info.WireBytes = v.FrameBytes(), v.WireBytes()
	if v.framesErr != nil {
		info.FramesErr = v.framesErr.Error()
	}
	if info.AllocatedBytes, err = v.Allocated(); err != nil {
		info.Err = err.Error()
	}
	if err := v.Close(); err != nil {
		info.Err = err.Error()
	}
	return info
}

// ErrNotFound means that there is no such image or version.
var ErrNotFound = errors.New("no such image")

// Get opens a version; "" and "latest" mean the newest. It checks the signature, the manifest and the torrent, not
// the data: see Version.Verify. The caller closes it.
func (l *Library) Get(name, version string) (*Version, error) {
	if err := manifest.CheckName(name); err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	if version == "" || version == "latest" {
		list, err := l.versions(name)
		if err != nil {
			return nil, fmt.Errorf("open image %s: %w", name, err)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("open image %s: %w; `labswarm image ls` shows what there is", name, ErrNotFound)
		}
		version = list[len(list)-1]
	}
	if err := manifest.CheckVersion(version); err != nil {
		return nil, fmt.Errorf("open image %s: %w", name, err)
	}
	return l.open(name, version)
}

// Latest returns the newest version of an image without opening it, "" when there is none.
func (l *Library) Latest(name string) (string, error) {
	if err := manifest.CheckName(name); err != nil {
		return "", fmt.Errorf("find image: %w", err)
	}
	list, err := l.versions(name)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[len(list)-1], nil
}

// Has tells whether there is such a version, without opening it.
func (l *Library) Has(name, version string) bool {
	if manifest.CheckName(name) != nil || manifest.CheckVersion(version) != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(l.path(name, version), manifestFile))
	return err == nil
}

// Remove deletes a version. The caller makes sure that no job and no open Version needs it.
func (l *Library) Remove(name, version string) error {
	if l.key == nil && !l.copies {
		return fmt.Errorf("remove image %s/%s: %w", name, version, ErrReadOnly)
	}
	if err := errors.Join(manifest.CheckName(name), manifest.CheckVersion(version)); err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	unlock, err := l.lock()
	if err != nil {
		return fmt.Errorf("remove image %s/%s: %w", name, version, err)
	}
	defer unlock()
	if l.key != nil && l.Has(name, version) {
		if err := l.remember(name, version); err != nil {
			return fmt.Errorf("remove image %s/%s: %w", name, version, err)
		}
	}
	trash, err := os.MkdirTemp(l.dir, ".trash-")
	if err != nil {
		return fmt.Errorf("remove image %s/%s: %w", name, version, err)
	}
	// One rename makes the version disappear as a whole; a crash later leaves only what the next Open sweeps.
	err = os.Rename(l.path(name, version), filepath.Join(trash, version))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err == nil {
		err = syncDir(filepath.Join(l.dir, name))
		_ = os.Remove(filepath.Join(l.dir, name)) // goes only when empty
	}
	if err2 := os.RemoveAll(trash); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("remove image %s/%s: %w", name, version, err)
	}
	return nil
}

func (l *Library) path(name, version string) string { return filepath.Join(l.dir, name, version) }

func (l *Library) names() ([]string, error) {
	return listDirs(l.dir, func(s string) bool { return manifest.CheckName(s) == nil })
}

// versions returns the versions of an image, oldest first.
func (l *Library) versions(name string) ([]string, error) {
	list, err := listDirs(filepath.Join(l.dir, name), func(s string) bool { return manifest.CheckVersion(s) == nil })
	slices.SortFunc(list, compareVersions)
	return list, err
}

func listDirs(dir string, want func(string) bool) ([]string, error) {
	ents, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range ents {
		if e.IsDir() && want(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

func splitVersion(v string) (date string, n int) {
	date, num, _ := strings.Cut(v, ".")
	n, _ = strconv.Atoi(num) // CheckVersion has seen digits only
	return date, n
}

// compareVersions orders by date, then by number: .10 comes after .9.
func compareVersions(a, b string) int {
	ad, an := splitVersion(a)
	bd, bn := splitVersion(b)
	return cmp.Or(strings.Compare(ad, bd), cmp.Compare(an, bn))
}

// nextVersion names the version after the existing ones. When the newest is dated in the future (a clock was wrong),
// it counts on there, so that a new version is always the newest.
func nextVersion(existing []string, now time.Time) string {
	date, n := now.Format(time.DateOnly), 0
	if len(existing) > 0 {
		if d, k := splitVersion(existing[len(existing)-1]); d >= date {
			date, n = d, k
		}
	}
	return date + "." + strconv.Itoa(n+1)
}
