package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// DefaultFile is read when no other is named; it may be missing.
const DefaultFile = "/etc/labswarm/labswarm.toml"

// DefaultStateDir is where the state is when nothing names another folder.
const DefaultStateDir = "/var/lib/labswarm"

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Source is where a configuration comes from. What stands later here wins.
type Source struct {
	File  string                      // labswarm.toml; conf.d/*.toml beside it follow in the order of their names
	Must  bool                        // the file was named by a person: it is an error when it is missing
	Env   func(string) (string, bool) // os.LookupEnv
	Flags map[string]string           // given flags, by Setting.Flag
}

// Loaded is a configuration and where each setting was told.
type Loaded struct {
	Config Config
	From   map[string]string // by Setting.Key: "FILE:LINE", "LABSWARM_X", "--x"; missing = default
}

// Load reads files, environment and flags over the defaults. *Error names all faults at once, those of files with file and
// line. It does not call Fill.
func Load(src Source) (Loaded, error) {
	l := Loaded{Config: Default(), From: map[string]string{}}
	l.Config.StateDir = DefaultStateDir
	settings := Settings()
	errs := l.files(src, settings)
	for i := range settings {
		s := &settings[i]
		if src.Env == nil {
			break
		}
		// An empty variable says nothing: unit files leave such behind.
		if v, ok := src.Env(s.Env()); ok && v != "" {
			errs = append(errs, l.set(s, v, s.Env()))
		}
	}
	for i := range settings {
		if v, ok := src.Flags[settings[i].Flag]; ok {
			errs = append(errs, l.set(&settings[i], v, "--"+settings[i].Flag))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return l, &Error{Err: err}
	}
	return l, nil
}

// Complete is Load and Fill, with the faults of both.
func Complete(src Source) (Loaded, error) {
	l, err := Load(src)
	var bad, more *Error
	if fill := l.Config.Fill(); errors.As(fill, &more) {
		if errors.As(err, &bad) {
			return l, &Error{Err: errors.Join(bad.Err, more.Err)}
		}
		return l, more
	}
	return l, err
}

func (l *Loaded) set(s *Setting, value, from string) error {
	if err := s.Set(&l.Config, value); err != nil {
		return fmt.Errorf("%s: %s: %w", from, s.Key, err)
	}
	l.From[s.Key] = from
	return nil
}

// files reads the main file and conf.d.
func (l *Loaded) files(src Source, settings []Setting) (errs []error) {
	if src.File == "" {
		return nil
	}
	// Glob's only error is a bad pattern, and this one is ours.
	more, _ := filepath.Glob(filepath.Join(filepath.Dir(src.File), "conf.d", "*.toml"))
	for i, path := range append([]string{src.File}, more...) {
		raw, err := readLimited(path)
		if i == 0 && !src.Must && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read configuration: %w", err))
			continue
		}
		errs = append(errs, l.file(path, raw, settings)...)
	}
	return errs
}

func readLimited(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return "", fmt.Errorf("%s: not a plain file of at most %d bytes", path, maxFile)
	}
	raw, err := os.ReadFile(path)
	return string(raw), err
}

// file takes in one file. All its faults come back, but after a fault of grammar nothing else can be told.
func (l *Loaded) file(path, raw string, settings []Setting) (errs []error) {
	var root map[string]toml.Primitive
	md, err := toml.Decode(raw, &root)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return []error{fmt.Errorf("%s:%d: %s", path, pe.Position.Line, pe.Message)}
		}
		return []error{fmt.Errorf("%s: %w", path, err)}
	}
	known := map[string]*Setting{}
	tables := map[string]bool{}
	for i := range settings {
		known[settings[i].Key] = &settings[i]
		t, _, _ := strings.Cut(settings[i].Key, ".")
		tables[t] = true
	}
	type found struct {
		line int
		err  error
	}
	var all []found
	bad := func(p toml.Primitive, format string, a ...any) {
		n := lineOf(&md, p)
		all = append(all, found{n, fmt.Errorf("%s:%d: "+format, append([]any{path, n}, a...)...)})
	}
	for _, table := range slices.Sorted(maps.Keys(root)) {
		var keys map[string]toml.Primitive
		// The decoder takes a plain value for an empty table without a word.
		if err := md.PrimitiveDecode(root[table], &keys); err != nil || keys == nil || !tables[table] {
			bad(root[table], "unknown key %q; tables are %s", table, strings.Join(slices.Sorted(maps.Keys(tables)), ", "))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(keys)) {
			p, key := keys[name], table+"."+name
			s := known[key]
			if s == nil {
				bad(p, "unknown key %q; `labswarm config print --defaults` lists all", key)
				continue
			}
			value, err := valueText(&md, p, s.Kind)
			if err != nil {
				bad(p, "%s: %w", key, err)
				continue
			}
			if err := s.Set(&l.Config, value); err != nil {
				bad(p, "%s: %w", key, err)
				continue
			}
			l.From[key] = fmt.Sprintf("%s:%d", path, lineOf(&md, p))
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return a.line - b.line })
	for _, f := range all {
		errs = append(errs, f.err)
	}
	return errs
}

// refusal is a toml.Unmarshaler that takes nothing: the error that the decoder makes of it holds the place of the key.
type refusal struct{}

// UnmarshalTOML implements toml.Unmarshaler.
func (*refusal) UnmarshalTOML(any) error { return errors.New("refused") }

// lineOf is the line of a key in its file, counted from 1.
func lineOf(md *toml.MetaData, p toml.Primitive) int {
	var pe toml.ParseError
	if err := md.PrimitiveDecode(p, &refusal{}); errors.As(err, &pe) && pe.Position.Line > 0 {
		return pe.Position.Line
	}
	return 1
}

// valueText spells a TOML value as a flag would.
func valueText(md *toml.MetaData, p toml.Primitive, kind Kind) (string, error) {
	var v any
	if err := md.PrimitiveDecode(p, &v); err != nil {
		return "", err
	}
	wrong := fmt.Errorf("this wants %s", kind)
	switch v := v.(type) {
	case string:
		if kind == Text {
			return v, nil
		}
	case bool:
		if kind == Bool {
			return strconv.FormatBool(v), nil
		}
	case int64:
		if kind == Number {
			return strconv.FormatInt(v, 10), nil
		}
	case []any:
		if kind != List {
			break
		}
		var out []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok || strings.Contains(s, ",") {
				return "", wrong
			}
			out = append(out, s)
		}
		return strings.Join(out, ","), nil
	case map[string]any:
		if kind != Map {
			break
		}
		var out []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			n, ok := v[k].(int64)
			if !ok || strings.ContainsAny(k, ",=") {
				return "", wrong
			}
			out = append(out, fmt.Sprintf("%s=%d", k, n))
		}
		return strings.Join(out, ","), nil
	}
	return "", wrong
}
