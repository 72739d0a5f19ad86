package library

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"labswarm/images/manifest"
)

// newestPrefix begins the names of files that remember the newest version of a name after it was removed: its number is
// never given to other content, since jobs, rooms and people go by it.
const newestPrefix = ".newest-"

// remember notes that a version is about to be removed, if it is the newest. The lock is held.
func (l *Library) remember(name, version string) error {
	list, err := l.taken(name)
	if err != nil || len(list) == 0 || list[len(list)-1] != version {
		return err // what is newer is here, or is remembered
	}
	path := filepath.Join(l.dir, newestPrefix+name)
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeSynced(tmp, []byte(version+"\n")); err != nil {
		return err
	}
	return errors.Join(os.Rename(tmp, path), syncDir(l.dir))
}

// taken returns the versions of a name that a new one must come after, oldest first. The lock is held.
func (l *Library) taken(name string) ([]string, error) {
	list, err := l.versions(name)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(l.dir, newestPrefix+name))
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	gone := strings.TrimSpace(string(raw))
	if err != nil || manifest.CheckVersion(gone) != nil {
		return list, err // a damaged note is no reason to make no images
	}
	if len(list) == 0 || compareVersions(list[len(list)-1], gone) < 0 {
		list = append(list, gone)
	}
	return list, nil
}
