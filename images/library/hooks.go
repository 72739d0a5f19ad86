package library

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"labswarm/images/manifest"
)

// hooksList is the file of a folder of hooks that says what becomes of the others.
const hooksList = "hooks.json"

// Hooks are what every PC gets beside its name: a signed part of a version.
type Hooks struct {
	list []manifest.Hook
	bin  []byte // contents, one behind the other
}

// NoHooks are none, whatever the newest version has.
func NoHooks() *Hooks { return &Hooks{} }

// Len is how many there are.
func (h *Hooks) Len() int { return len(h.list) }

// hookEntry is one entry of hooks.json.
type hookEntry struct {
	Kind   string `json:"kind"`
	File   string `json:"file,omitempty"`
	Path   string `json:"path,omitempty"`
	Mode   string `json:"mode,omitempty"`
	UID    int    `json:"uid,omitempty"`
	GID    int    `json:"gid,omitempty"`
	Fields string `json:"fields,omitempty"`
}

// LoadHooks reads a folder: hooks.json, a list of hooks in the order in which they are done, and the files that it names.
// Nothing is followed out of the folder.
func LoadHooks(dir string) (*Hooks, error) {
	h, err := loadHooks(dir)
	if err != nil {
		return nil, fmt.Errorf("read hooks in %q: %w", dir, err)
	}
	return h, nil
}

func loadHooks(dir string) (_ *Hooks, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	text, err := readAll(root, hooksList, 256<<10)
	if err != nil {
		return nil, err
	}
	list, err := parseHooks(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hooksList, err)
	}
	h := &Hooks{}
	for i, e := range list {
		m := manifest.Hook{Kind: e.Kind, File: e.File, Path: e.Path, Mode: e.Mode, UID: e.UID, GID: e.GID, Fields: e.Fields}
		if e.Kind == manifest.HookFile && e.Mode == "" {
			m.Mode = "0644"
		}
		if e.Kind != manifest.HookRemove {
			content, err := readAll(root, filepath.Base(e.File), manifest.MaxHook)
			if err != nil {
				return nil, fmt.Errorf("hook %d: %w", i+1, err)
			}
			sum := sha256.Sum256(content)
			m.SHA256, m.Len = hex.EncodeToString(sum[:]), int64(len(content))
			if err := errors.Join(m.Check(), m.CheckContent(content)); err != nil {
				return nil, err
			}
			h.bin = append(h.bin, content...)
		} else if err := m.Check(); err != nil {
			return nil, err
		}
		h.list = append(h.list, m)
	}
	if len(h.bin) > manifest.MaxHookBytes {
		return nil, fmt.Errorf("they have %d bytes together; %d are allowed", len(h.bin), manifest.MaxHookBytes)
	}
	return h, nil
}

// parseHooks reads hooks.json.
func parseHooks(text []byte) ([]hookEntry, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var list []hookEntry
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf(`want a list such as [{"kind": "file", "file": "motd", "path": "/etc/motd"}]: %w`, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the list")
	}
	if len(list) == 0 || len(list) > manifest.MaxHooks {
		return nil, fmt.Errorf("it has %d hooks; want 1 to %d", len(list), manifest.MaxHooks)
	}
	return list, nil
}

// readAll reads a regular file of a folder, of at most limit bytes.
func readAll(root *os.Root, name string, limit int64) (b []byte, err error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", name)
	}
	if b, err = io.ReadAll(io.LimitReader(f, limit+1)); err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s exceeds the limit of %d bytes", name, limit)
	}
	return b, err
}

// hooksOf are those of a version.
func hooksOf(v *Version) *Hooks { return &Hooks{v.man.Personalise.Hooks, v.hooksBin} }

// hooks are those of a new version: what was asked for, else what the newest version has. A disk that has no Linux any
// more cannot take them over.
func (j *importJob) hooks(parts []manifest.Part) (p manifest.Personalise, bin []byte) {
	h := j.opt.Hooks
	if h == nil && j.base != nil {
		h = hooksOf(j.base.v)
		if len(h.list) > 0 && !slices.ContainsFunc(parts, func(q manifest.Part) bool { return q.OS == "linux" }) {
			j.opt.Warn(fmt.Sprintf("the %d hooks of version %s are dropped: this disk has no Linux filesystem", len(h.list), j.base.version()))
			h = nil
		}
	}
	if h == nil || len(h.list) == 0 {
		return p, nil
	}
	return manifest.Personalise{Hooks: h.list}, h.bin
}
