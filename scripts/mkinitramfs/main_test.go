package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"labswarm/internal/testreq"
)

// kernel makes a small kernel tree, module list, firmware and agent.
func kernel(t *testing.T) options {
	t.Helper()
	testreq.Tool(t, "zstd", "zstd")
	root := t.TempDir()
	put := func(name, text string) string {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	mod := "k/lib/modules/6.1.0-test/"
	put(mod+"kernel/a.ko", "\x7fELF a\x00firmware=a/fw.bin\x00firmware=../../etc/passwd\x00signature")
	put(mod+"kernel/b-dep.ko", "b\x00firmware=missing.bin\x00")
	put(mod+"kernel/c.ko", "c")
	put(mod+"modules.dep", "kernel/a.ko: kernel/b-dep.ko\nkernel/b-dep.ko: \nkernel/c.ko: \n")
	put(mod+"modules.builtin", "kernel/ext4.ko\n")
	put(mod+"modules.alias", "alias pci:1 a\nalias pci:2 c\nalias pci:3 b_dep\n")
	put(mod+"modules.softdep", "softdep a pre: b_dep\nsoftdep c pre: a\n")
	put("fw/a/fw.bin", "firmware")
	return options{set: "test", kernelRoot: filepath.Join(root, "k"), modules: put("list", "# comment\na ext4 ?nosuch\n"), firmware: filepath.Join(root, "fw"),
		agent: put("agent", "agent"), out: filepath.Join(root, "out", "initrd.img")}
}

func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plain, err := d.DecodeAll(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	recs, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, r := range recs {
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 || r.Ino != uint64(i+1) {
			t.Errorf("%s: time %d, owner %d:%d, inode %d", r.Name, r.MTime, r.UID, r.GID, r.Ino)
		}
		text := ""
		if r.ReaderAt != nil {
			b := make([]byte, r.FileSize)
			if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			text = string(b)
		}
		out[r.Name] = text
	}
	return out
}

func TestPack(t *testing.T) {
	o := kernel(t)
	if err := run(o); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(o.out)
	if err != nil {
		t.Fatal(err)
	}
	got := unpack(t, o.out)
	base := "lib/modules/6.1.0-test/"
	for name, want := range map[string]string{
		"init": "agent", base + "kernel/a.ko": "\x7fELF a\x00firmware=a/fw.bin\x00firmware=../../etc/passwd\x00signature",
		base + "kernel/b-dep.ko": "b\x00firmware=missing.bin\x00", "lib/firmware/a/fw.bin": "firmware",
		base + "modules.dep":     "kernel/a.ko: kernel/b-dep.ko\nkernel/b-dep.ko:\n",
		base + "modules.alias":   "alias pci:1 a\nalias pci:3 b_dep\n",
		base + "modules.softdep": "softdep a pre: b_dep\n",
	} {
		if got[name] != want {
			t.Errorf("%s = %q; want %q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, "c.ko") || strings.Contains(name, "passwd") {
			t.Errorf("%s was packed", name)
		}
	}
	for _, name := range []string{"dev", "dev/console", "proc", "sys", "etc"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if err := run(o); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(o.out)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("two builds differ (%v)", err)
	}
}

func TestMissingThingsAreNamed(t *testing.T) {
	for name, change := range map[string]func(*options){
		"no module \"nosuch\"": func(o *options) { rewrite(t, o.modules, "a nosuch\n") },
		"modules.dep":          func(o *options) { o.kernelRoot = t.TempDir() },
		"agent":                func(o *options) { o.agent = "/nonexistent" },
		"needs --kernel-root":  func(o *options) { *o = options{} },
	} {
		o := kernel(t)
		change(&o)
		if err := run(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("run = %v; want an error with %q", err, name)
		}
	}
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestListsNameWhatTheAgentLoads: the modules the agent loads by name are in
// both lists.
func TestListsNameWhatTheAgentLoads(t *testing.T) {
	for _, list := range []string{"../modules-virtual.txt", "../modules-lab.txt"} {
		raw, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(string(raw))
		for _, m := range []string{"sd_mod", "efivarfs", "virtio_net", "virtio_blk", "virtio_pci", "virtio_rng", "nvme", "ext4", "vfat", "nls_cp437", "nls_ascii", "?crc32c_generic", "?crc32c_intel"} {
			if !slices.Contains(words, m) {
				t.Errorf("%s does not name %s", list, m)
			}
		}
	}
}
