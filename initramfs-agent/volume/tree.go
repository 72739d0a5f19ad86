package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Tree is the root folder of an installed system. No path leads out of it.
// Paths are relative and slash-separated.
type Tree struct {
	fd    int
	plain bool
}

// Kind is what stands at a path.
type Kind int

// Kinds of entries. Nothing is also what a path through a missing folder is.
const (
	Nothing Kind = iota
	File
	Dir
	Link
	Other
)

// Meta is what a file has besides its content.
type Meta struct {
	Mode     uint32 // permission bits
	UID, GID int
	Label    []byte // of SELinux; nil = none
}

// temp is the name under which a file is written before it takes its place.
const temp = ".labswarm-new"

const label = "security.selinux"

// maxFile bounds what is read of a file, in bytes: those that are read here
// have some hundred.
const maxFile = 1 << 20

// open opens a path inside root.
func open(root int, p string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(root, p, &how)
		switch {
		// EAGAIN: a rename somewhere made the walk unsafe, openat2(2) says to repeat it.
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return -1, &fs.PathError{Op: "open", Path: "/" + p, Err: err}
		}
		return fd, nil
	}
}

// Close closes the root folder.
func (t *Tree) Close() error { return unix.Close(t.fd) }

// Sub opens a folder as a root of its own.
func (t *Tree) Sub(dir string) (*Tree, error) {
	fd, err := open(t.fd, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Tree{fd: fd, plain: t.plain}, nil
}

// Lstat tells what stands at a path, links not followed.
func (t *Tree) Lstat(p string) (Kind, Meta, error) {
	fd, err := open(t.fd, p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return Nothing, Meta{}, nil
	}
	if err != nil {
		return Nothing, Meta{}, err
	}
	defer unix.Close(fd) //nolint:errcheck // only looked at
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Nothing, Meta{}, &fs.PathError{Op: "stat", Path: "/" + p, Err: err}
	}
	m := Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return File, m, nil
	case unix.S_IFDIR:
		return Dir, m, nil
	case unix.S_IFLNK:
		return Link, m, nil
	}
	return Other, m, nil
}

// ReadLink returns where a link leads, as it is written in it.
func (t *Tree) ReadLink(p string) (target string, err error) {
	err = t.in(p, func(dir int, name string) error {
		buf := make([]byte, 4096)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return err
		}
		target = string(buf[:n])
		return nil
	})
	return target, err
}

// ReadFile returns the content of a file, no more than 1 MiB of it.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	// A FIFO of that name would block.
	fd, err := open(t.fd, p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var out []byte
	buf := make([]byte, 64<<10)
	for len(out) <= maxFile {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: "/" + p, Err: err}
		case n == 0:
			return out, nil
		}
		out = append(out, buf[:n]...)
	}
	return nil, &fs.PathError{Op: "read", Path: "/" + p, Err: unix.EFBIG}
}

// Names lists a folder, sorted; a missing one is empty.
func (t *Tree) Names(dir string) ([]string, error) {
	fd, err := open(t.fd, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "list", Path: "/" + dir, Err: err}
		}
		if n == 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// in calls do with the folder of a path, opened, and the path's last part.
func (t *Tree) in(p string, do func(dir int, name string) error) (err error) {
	dir, err := open(t.fd, path.Dir(p), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	if err := do(dir, path.Base(p)); err != nil {
		return &fs.PathError{Op: "change", Path: "/" + p, Err: err}
	}
	return nil
}

// Remove removes a file; one that is not there is no error.
func (t *Tree) Remove(p string) error {
	return t.in(p, func(dir int, name string) error {
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return unix.Fsync(dir)
	})
}

// Mkdir makes a folder; one that is there already is no error.
func (t *Tree) Mkdir(p string, mode uint32) error {
	return t.in(p, func(dir int, name string) error {
		if err := unix.Mkdirat(dir, name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return unix.Fsync(dir)
	})
}

// Replace gives the file at a path new content in one step: written beside it,
// made durable, renamed over it; a link there is replaced, not followed. A file that was there keeps
// its owner, mode and label; for a new one m says them.
func (t *Tree) Replace(p string, content []byte, m Meta) error {
	return t.replace(p, content, m, false)
}

// Put is Replace that gives mode and owner of m also to a file that was there.
func (t *Tree) Put(p string, content []byte, m Meta) error { return t.replace(p, content, m, true) }

// Symlink makes a link, in the place of a file or link that was there.
func (t *Tree) Symlink(target, p string) error {
	return t.in(p, func(dir int, name string) error {
		if err := unix.Unlinkat(dir, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := unix.Symlinkat(target, dir, temp); err != nil {
			return err
		}
		if err := unix.Renameat(dir, temp, dir, name); err != nil {
			return errors.Join(err, unix.Unlinkat(dir, temp, 0))
		}
		return unix.Fsync(dir)
	})
}

func (t *Tree) replace(p string, content []byte, m Meta, exact bool) error {
	return t.in(p, func(dir int, name string) error {
		if old, ok, err := metaOf(dir, name); err != nil {
			return err
		} else if ok {
			if m.Label = old.Label; !exact {
				m = old
			}
		}
		// A leftover of a run that lost its power.
		if err := unix.Unlinkat(dir, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := t.write(dir, content, m); err != nil {
			return errors.Join(err, unix.Unlinkat(dir, temp, 0))
		}
		if err := unix.Renameat(dir, temp, dir, name); err != nil {
			return err
		}
		return unix.Fsync(dir)
	})
}

// metaOf looks at a file that is about to be replaced.
func metaOf(dir int, name string) (m Meta, ok bool, err error) {
	fd, err := open(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) { // a link is not followed
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	defer unix.Close(fd) //nolint:errcheck // only looked at
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return m, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return m, false, errors.New("it is not a regular file")
	}
	m = Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
	buf := make([]byte, 256)
	if n, err := unix.Fgetxattr(fd, label, buf); err == nil && n > 0 { // most systems have none
		m.Label = buf[:n]
	}
	return m, true, nil
}

// write makes the temporary file in the folder dir.
func (t *Tree) write(dir int, content []byte, m Meta) (err error) {
	fd, err := open(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		content = content[n:]
	}
	if !t.plain {
		if err := errors.Join(unix.Fchown(fd, m.UID, m.GID), unix.Fchmod(fd, m.Mode)); err != nil {
			return err
		}
	}
	if m.Label != nil {
		if err := unix.Fsetxattr(fd, label, m.Label, 0); err != nil {
			return fmt.Errorf("label: %w", err)
		}
	}
	return unix.Fsync(fd)
}

// Temporary tells whether a leftover of Replace lies in a folder.
func (t *Tree) Temporary(dir string) (bool, error) {
	k, _, err := t.Lstat(path.Join(dir, temp))
	return k != Nothing, err
}
