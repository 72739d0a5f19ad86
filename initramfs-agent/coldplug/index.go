// Package coldplug loads the kernel modules for the devices that are present:
// once at start until nothing new appears, then on every hotplug event.
//
// It reads the depmod indexes of the initramfs, calls finit_module(2), and
// nothing else: no module is loaded because it exists, only because a device
// asks for it by its modalias or because the caller names it. Called by main.
package coldplug

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Index is the content of the depmod files below /lib/modules/VERSION.
type Index struct {
	dir     string
	deps    map[string][]string // module file -> files it needs, relative to dir
	files   map[string]string   // module name -> file
	builtin map[string]bool     // names compiled into the kernel
	soft    map[string][]string // module name -> names to load before it
	aliases map[string][]alias  // bus -> patterns
}

type alias struct{ pattern, module string }

// norm is the spelling by which modules are compared: the kernel does not tell
// '-' from '_'.
func norm(name string) string { return strings.ReplaceAll(name, "-", "_") }

// nameOf returns the module's name from its file name.
func nameOf(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return norm(base)
}

// ReadIndex reads the depmod files of dir. modules.dep must be there, the
// others may be missing.
func ReadIndex(dir string) (*Index, error) {
	x := &Index{
		dir: dir, deps: map[string][]string{}, files: map[string]string{},
		builtin: map[string]bool{}, soft: map[string][]string{}, aliases: map[string][]alias{},
	}
	// depmod writes "x.ko: " with a trailing blank for modules without
	// dependencies; Fields drops it.
	if err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) {
		file, list, ok := strings.Cut(line, ":")
		if ok {
			x.deps[file] = strings.Fields(list)
			x.files[nameOf(file)] = file
		}
	}); err != nil {
		return nil, fmt.Errorf("read module index: %w", err)
	}
	optional := map[string]func(string){
		"modules.builtin": func(line string) { x.builtin[nameOf(line)] = true },
		"modules.softdep": x.addSoft,
		"modules.alias":   x.addAlias,
	}
	for name, f := range optional {
		if err := eachLine(filepath.Join(dir, name), f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read module index: %w", err)
		}
	}
	return x, nil
}

// addAlias reads "alias PATTERN MODULE"; patterns are kept per bus, the part
// before the colon, so that a device is matched against hundreds, not
// thousands.
func (x *Index) addAlias(line string) {
	w := strings.Fields(line)
	if len(w) != 3 || w[0] != "alias" {
		return
	}
	bus, _, ok := strings.Cut(w[1], ":")
	if !ok {
		return
	}
	bus = strings.TrimRight(bus, "*") // "acpi*:PNP..." stands for the bus acpi
	x.aliases[bus] = append(x.aliases[bus], alias{w[1], norm(w[2])})
}

// addSoft reads "softdep NAME pre: A B post: C". Only the first part matters
// here: r8169 fails without realtek, its PHY driver, and the kernel cannot ask
// for it by itself since there is no modprobe in the initramfs.
func (x *Index) addSoft(line string) {
	w := strings.Fields(line)
	if len(w) < 4 || w[0] != "softdep" {
		return
	}
	pre := false
	for _, word := range w[2:] {
		switch {
		case word == "pre:":
			pre = true
		case word == "post:":
			pre = false
		case pre:
			x.soft[norm(w[1])] = append(x.soft[norm(w[1])], norm(word))
		}
	}
}

// Match returns the names of the modules that ask for a device.
func (x *Index) Match(modalias string) []string {
	bus, _, ok := strings.Cut(modalias, ":")
	if !ok {
		return nil
	}
	var out []string
	seen := map[string]bool{}
	for _, a := range x.aliases[bus] {
		if ok, err := path.Match(a.pattern, modalias); err == nil && ok && !seen[a.module] {
			seen[a.module] = true
			out = append(out, a.module)
		}
	}
	return out
}

func eachLine(file string, f func(string)) (err error) {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" && !strings.HasPrefix(line, "#") {
			f(line)
		}
	}
	return sc.Err()
}
