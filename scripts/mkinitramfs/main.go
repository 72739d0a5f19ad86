// Command mkinitramfs packs the agent, the kernel modules of a list with all
// they need, and the firmware those ask for into one initramfs. Two builds from
// the same inputs are byte-equal. Modules are copied as they are: stripping or
// recompressing one would take its signature away, and Secure Boot's lockdown
// would refuse it.
//
//	go run ./scripts/mkinitramfs --set virtual --kernel-root DIR --modules FILE --agent BIN -o OUT
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

type options struct {
	set, kernelRoot, modules, firmware, agent, out string
}

func main() {
	var o options
	flag.StringVar(&o.set, "set", "", "name of the module set, for messages: virtual or lab")
	flag.StringVar(&o.kernelRoot, "kernel-root", "", "folder with lib/modules/VERSION, depmod has run")
	flag.StringVar(&o.modules, "modules", "", "module list: a name per line, or a folder below kernel/ ending in /")
	flag.StringVar(&o.firmware, "firmware", "", "folder with firmware files; empty = none")
	flag.StringVar(&o.agent, "agent", "", "the labswarm-agent program, becomes /init")
	flag.StringVar(&o.out, "o", "", "file to write")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "mkinitramfs: %v\n", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.kernelRoot == "" || o.modules == "" || o.agent == "" || o.out == "" {
		return errors.New("needs --kernel-root, --modules, --agent and -o")
	}
	dir, version, err := moduleDir(o.kernelRoot)
	if err != nil {
		return err
	}
	set, err := selectModules(dir, o.modules)
	if err != nil {
		return err
	}
	var a archive
	for _, d := range []string{"dev", "proc", "sys", "tmp", "etc", "etc/labswarm"} {
		a.mkdir(d)
	}
	a.records = append(a.records, cpio.CharDev("dev/console", 0o600, 5, 1))
	if err := a.addModules(dir, "lib/modules/"+version, set); err != nil {
		return err
	}
	firmware, missing, err := a.addFirmware(o.firmware, set.firmware)
	if err != nil {
		return err
	}
	agent, err := os.ReadFile(o.agent)
	if err != nil {
		return fmt.Errorf("read agent: %w", err)
	}
	a.add("init", agent, 0o755)
	raw, err := a.bytes()
	if err != nil {
		return err
	}
	packed, err := compress(raw)
	if err != nil {
		return err
	}
	if err := writeFile(o.out, packed); err != nil {
		return err
	}
	fmt.Printf("%s: %s set for kernel %s: %d modules, %d firmware files, %.1f MB unpacked, %.1f MB\n",
		o.out, o.set, version, len(set.files), firmware, float64(len(raw))/1e6, float64(len(packed))/1e6)
	if len(missing) > 0 && o.firmware != "" {
		fmt.Printf("%s: %d firmware files that these modules may ask for are not in Debian's packages: %s\n", o.out, len(missing), strings.Join(missing, " "))
	}
	return nil
}

// moduleDir finds the one lib/modules/VERSION below root.
func moduleDir(root string) (dir, version string, err error) {
	found, err := filepath.Glob(filepath.Join(root, "lib/modules/*/modules.dep"))
	if err != nil {
		return "", "", err
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("find lib/modules/VERSION/modules.dep in %q: found %d, want exactly one; remove build/cache and build/boot and run make bootfiles", root, len(found))
	}
	dir = filepath.Dir(found[0])
	return dir, filepath.Base(dir), nil
}

// compress makes one zstd frame. The kernel reads windows of up to 128 MiB; 8
// MiB keeps a terminal with little memory happy. The program packs a tenth
// smaller than the Go library, and every PC fetches this file.
func compress(raw []byte) ([]byte, error) {
	cmd := exec.CommandContext(context.Background(), "zstd", "-q", "-19", "--long=23", "-T0", "-c")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("compress (package zstd): %w", err)
	}
	return out, nil
}

// writeFile replaces path in one step.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return errors.Join(fmt.Errorf("write %q: %w", path, err), os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// archive collects records; parents come before children.
type archive struct {
	records []cpio.Record
	made    map[string]bool
}

func (a *archive) mkdir(d string) {
	if d == "." || d == "/" || a.made[d] {
		return
	}
	if a.made == nil {
		a.made = map[string]bool{}
	}
	a.mkdir(filepath.Dir(d))
	a.made[d] = true
	a.records = append(a.records, cpio.Directory(d, 0o755))
}

func (a *archive) add(name string, content []byte, mode uint64) {
	a.mkdir(filepath.Dir(name))
	a.records = append(a.records, cpio.StaticFile(name, string(content), mode))
}

// bytes renders the archive with inode numbers in order and no times.
func (a *archive) bytes() ([]byte, error) {
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	for i, r := range a.records {
		r.Ino = uint64(i + 1)
		r.MTime = 0
		if err := w.WriteRecord(r); err != nil {
			return nil, fmt.Errorf("pack %q: %w", r.Name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return b.Bytes(), nil
}
