// Package personalise makes a PC out of a copy: its own name, its own SSH keys,
// and nothing of the reference machine's identity.
//
// What becomes of the files is decided by pure functions over what the image
// holds (Linux, Windows); Apply then changes them and Verify compares. The
// package mounts nothing and opens no device. Called by package finalise.
package personalise

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"labswarm/api"
	"labswarm/initramfs-agent/volume"
)

// Host is what the signed order says of this PC.
type Host struct {
	Name  string `json:"host"` // computer name, from the host record
	Room  string `json:"room"`
	Image string `json:"image"` // name/version
	Job   uint64 `json:"job"`

	MAC     string       `json:"-"` // of the card that it boots from
	Network *api.Network `json:"-"` // its fixed address; nil = as the image has it
}

// Root is what the rules look at: a volume.Tree, or a table in tests.
type Root interface {
	Lstat(path string) (volume.Kind, volume.Meta, error)
	ReadFile(path string) ([]byte, error)
	ReadLink(path string) (string, error)
	Names(dir string) ([]string, error)
}

// Change is what becomes of one path.
type Change struct {
	Path    string
	Remove  bool
	Folder  bool        // make it, when it is not there
	Link    string      // make a symbolic link that leads there
	Content []byte      // of the file
	Meta    volume.Meta // for a file that is new; an old one keeps its own
	Exact   bool        // an old one gets mode and owner of Meta too
}

// Plan is all that is done to one root.
type Plan struct {
	Changes  []Change
	HostKeys []string // public SSH keys, "type base64"
	Warnings []string
}

func (p *Plan) put(path string, content []byte, m volume.Meta) {
	p.Changes = append(p.Changes, Change{Path: path, Content: content, Meta: m})
}

func (p *Plan) remove(path string) {
	p.Changes = append(p.Changes, Change{Path: path, Remove: true})
}

// maxLinks is how many symbolic links in a row are followed, as in Linux.
const maxLinks = 40

// resolve follows the links that a path ends in, so that the file itself is
// replaced and the link stays. The links' folders are the kernel's business.
func resolve(r Root, p string) (string, volume.Kind, volume.Meta, error) {
	for range maxLinks {
		k, m, err := r.Lstat(p)
		if err != nil || k != volume.Link {
			return p, k, m, err
		}
		to, err := r.ReadLink(p)
		if err != nil {
			return p, k, m, err
		}
		if !path.IsAbs(to) {
			to = path.Join("/", path.Dir(p), to)
		}
		p = strings.TrimPrefix(path.Clean(to), "/")
	}
	return p, volume.Nothing, volume.Meta{}, fmt.Errorf("follow /%s: more than %d symbolic links", p, maxLinks)
}

// Apply makes the changes. It may be repeated from the start after any failure.
func Apply(t *volume.Tree, p *Plan) error {
	for _, c := range p.Changes {
		var err error
		switch {
		case c.Remove:
			err = t.Remove(c.Path)
		case c.Folder:
			err = t.Mkdir(c.Path, c.Meta.Mode)
		case c.Link != "":
			err = t.Symlink(c.Link, c.Path)
		case c.Exact:
			err = t.Put(c.Path, c.Content, c.Meta)
		default:
			err = t.Replace(c.Path, c.Content, c.Meta)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Verify compares a root, mounted anew, with what Apply was to make of it.
func Verify(t *volume.Tree, p *Plan) error {
	var errs []error
	for _, c := range p.Changes {
		if err := verify(t, c); err != nil {
			errs = append(errs, fmt.Errorf("read back /%s: %w", c.Path, err))
		}
	}
	return errors.Join(errs...)
}

func verify(t *volume.Tree, c Change) error {
	k, m, err := t.Lstat(c.Path)
	if err != nil {
		return err
	}
	switch {
	case c.Link != "":
		to, err := t.ReadLink(c.Path)
		if err == nil && to != c.Link {
			err = fmt.Errorf("it leads to %q, not to %q", to, c.Link)
		}
		return err
	case c.Exact && k == volume.File && (m.Mode != c.Meta.Mode || m.UID != c.Meta.UID || m.GID != c.Meta.GID):
		return fmt.Errorf("mode %o and owner %d:%d; %o and %d:%d were written", m.Mode, m.UID, m.GID, c.Meta.Mode, c.Meta.UID, c.Meta.GID)
	case c.Remove:
		if k != volume.Nothing {
			return errors.New("it is still there")
		}
		return nil
	case c.Folder:
		if k != volume.Dir {
			return errors.New("it is no folder")
		}
		return nil
	case k != volume.File:
		return errors.New("it is no file")
	}
	got, err := t.ReadFile(c.Path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, c.Content) {
		return fmt.Errorf("it has %d bytes that are not the %d that were written", len(got), len(c.Content))
	}
	left, err := t.Temporary(path.Dir(c.Path))
	if err == nil && left {
		err = errors.New("a temporary file is left beside it")
	}
	return err
}
