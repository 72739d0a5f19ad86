package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// moduleSet is a closed selection of modules.
type moduleSet struct {
	files    []string            // relative to the module folder, sorted
	deps     map[string][]string // of every file
	names    map[string]bool     // normalised names
	firmware map[string]bool     // names that the modules may ask for
}

func norm(s string) string { return strings.ReplaceAll(s, "-", "_") }

func nameOf(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return norm(base)
}

// selectModules reads the list and closes it over modules.dep. A name that is
// neither a module nor built in is an error: a typing mistake there would be a
// PC without its network card.
func selectModules(dir, list string) (*moduleSet, error) {
	deps, byName, err := readDeps(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := readBuiltin(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	wanted, err := os.ReadFile(list)
	if err != nil {
		return nil, fmt.Errorf("read module list: %w", err)
	}
	set := &moduleSet{deps: deps, names: map[string]bool{}, firmware: map[string]bool{}}
	chosen := map[string]bool{}
	for line := range strings.Lines(string(wanted)) {
		line, _, _ = strings.Cut(line, "#")
		for _, want := range strings.Fields(line) {
			if err := choose(want, deps, byName, builtin, chosen); err != nil {
				return nil, fmt.Errorf("%s: %w", list, err)
			}
		}
	}
	for file := range chosen {
		set.files = append(set.files, file)
		set.names[nameOf(file)] = true
	}
	sort.Strings(set.files)
	return set, nil
}

func choose(want string, deps map[string][]string, byName map[string]string, builtin, chosen map[string]bool) error {
	optional := strings.HasPrefix(want, "?") // not in every Debian release
	want = strings.TrimPrefix(want, "?")
	var hits []string
	if strings.HasSuffix(want, "/") {
		for file := range deps {
			if strings.HasPrefix(file, "kernel/"+want) {
				hits = append(hits, file)
			}
		}
	} else if file, ok := byName[norm(want)]; ok {
		hits = append(hits, file)
	}
	if len(hits) == 0 && !builtin[norm(want)] && !optional {
		return fmt.Errorf("no module %q in this kernel", want)
	}
	for _, file := range hits {
		chosen[file] = true
		for _, d := range deps[file] { // modules.dep lists the whole closure
			chosen[d] = true
		}
	}
	return nil
}

func readDeps(file string) (deps map[string][]string, byName map[string]string, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read module dependencies: %w", err)
	}
	deps, byName = map[string][]string{}, map[string]string{}
	for line := range strings.Lines(string(raw)) {
		// a module without dependencies stands as "x.ko: ", blank included
		mod, list, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok {
			deps[mod] = strings.Fields(list)
			byName[nameOf(mod)] = mod
		}
	}
	return deps, byName, nil
}

func readBuiltin(file string) (map[string]bool, error) {
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read built-in modules: %w", err)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		out[nameOf(strings.TrimSpace(line))] = true
	}
	return out, nil
}

// addModules packs the modules and the indexes cut down to them.
func (a *archive) addModules(dir, base string, set *moduleSet) error {
	var dep bytes.Buffer
	for _, file := range set.files {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return fmt.Errorf("read module: %w", err)
		}
		a.add(base+"/"+file, content, 0o644)
		fmt.Fprintln(&dep, strings.TrimSpace(file+": "+strings.Join(set.deps[file], " ")))
		info, err := modinfo(filepath.Join(dir, file), content)
		if err != nil {
			return err
		}
		for field := range bytes.SplitSeq(info, []byte{0}) { // .modinfo strings end with NUL
			if name, ok := strings.CutPrefix(string(field), "firmware="); ok {
				set.firmware[name] = true
			}
		}
	}
	a.add(base+"/modules.dep", dep.Bytes(), 0o644)
	for _, name := range []string{"modules.alias", "modules.softdep", "modules.builtin"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read module index: %w", err)
		}
		a.add(base+"/"+name, cut(name, raw, set.names), 0o644)
	}
	return nil
}

// modinfo returns the bytes of a module with its .modinfo strings in them.
// Debian 13 packs its modules with xz.
func modinfo(file string, content []byte) ([]byte, error) {
	if !strings.HasSuffix(file, ".xz") {
		return content, nil
	}
	cmd := exec.CommandContext(context.Background(), "xz", "-dc", file)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s (package xz-utils): %w", file, err)
	}
	return out, nil
}

// cut keeps the lines of an index that speak of the chosen modules.
func cut(name string, raw []byte, names map[string]bool) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(raw)) {
		w := strings.Fields(line)
		keep := true
		switch name {
		case "modules.alias":
			keep = len(w) == 3 && names[norm(w[2])]
		case "modules.softdep":
			keep = len(w) > 2 && names[norm(w[1])]
		}
		if keep {
			out.WriteString(line)
		}
	}
	return out.Bytes()
}

// addFirmware packs the firmware files that exist and returns the names of the
// others. The kernel loads plain and .xz files.
func (a *archive) addFirmware(dir string, wanted map[string]bool) (n int, missing []string, err error) {
	if dir == "" {
		return 0, nil, nil
	}
	var names []string
	for name := range wanted {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "*?") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return n, nil, fmt.Errorf("read firmware: %w", err)
		}
		a.add("lib/firmware/"+name, content, 0o644)
		n++
	}
	return n, missing, nil
}
