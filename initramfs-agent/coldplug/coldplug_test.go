package coldplug

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// modulesDir writes a small depmod tree, with the trailing blanks that depmod
// writes.
func modulesDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "kernel/a/virtio.ko: \nkernel/a/virtio_ring.ko: kernel/a/virtio.ko\n" +
			"kernel/a/virtio_pci.ko: kernel/a/virtio_ring.ko kernel/a/virtio.ko\nkernel/n/r8169.ko: kernel/n/mdio.ko\n" +
			"kernel/n/mdio.ko: \nkernel/n/realtek.ko: \n",
		"modules.builtin": "kernel/fs/sd-mod.ko\n",
		"modules.softdep": "# comment\nsoftdep r8169 pre: realtek missing_one post: other\n",
		"modules.alias": "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio-pci\nalias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\n" +
			"alias acpi*:PNP0C0A:* battery\nalias nocolon x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func device(t *testing.T, sys, name, modalias string, driver bool) {
	t.Helper()
	dir := filepath.Join(sys, "devices", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte(modalias+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if driver {
		if err := os.Symlink("/x", filepath.Join(dir, "driver")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMatch(t *testing.T) {
	x, err := ReadIndex(modulesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	for modalias, want := range map[string][]string{
		"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00": {"virtio_pci"},
		"pci:v000010ECd00008168sv0sd0bc02sc00i00":               {"r8169"},
		"pci:v000010ECd00008139sv0sd0bc02sc00i00":               nil,
		"acpi:PNP0C0A:": {"battery"},
		"nothing":       nil,
	} {
		if diff := cmp.Diff(want, x.Match(modalias)); diff != "" {
			t.Errorf("Match(%q): %s", modalias, diff)
		}
	}
}

func TestSettleLoadsInOrderOnce(t *testing.T) {
	x, err := ReadIndex(modulesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	sys := t.TempDir()
	device(t, sys, "pci0/1", "pci:v00001AF4d00001000sv0sd0bc02sc00i00", true)
	device(t, sys, "pci0/2", "pci:v000010ECd00008168sv0sd0bc02sc00i00", false)
	device(t, sys, "pci0/3", "pci:v00001234d00001111sv0sd0bc03sc00i00", false)
	l := New(x, sys, slog.New(slog.DiscardHandler))
	var mu sync.Mutex
	var got []string
	l.init = func(file string) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, nameOf(file))
		return nil
	}
	l.Settle(t.Context(), 10*time.Millisecond, time.Second)
	l.Settle(t.Context(), 10*time.Millisecond, time.Second)
	pos := func(name string) int { return slices.Index(got, name) }
	if len(got) != 6 {
		t.Fatalf("loaded %v; want each of 6 modules once", got)
	}
	if pos("virtio") > pos("virtio_ring") || pos("virtio_ring") > pos("virtio_pci") {
		t.Errorf("loaded %v; want dependencies first", got)
	}
	if pos("realtek") > pos("r8169") || pos("mdio") > pos("r8169") {
		t.Errorf("loaded %v; want the PHY driver before r8169", got)
	}
	if err := l.Load("sd_mod"); err != nil {
		t.Errorf("Load of a built-in module = %v", err)
	}
	if err := l.Load("nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of an unknown module = %v; want ErrNotExist", err)
	}
	want := []string{"pci:v000010ECd00008168sv0sd0bc02sc00i00"}
	if diff := cmp.Diff(want, l.NoDriver()); diff != "" {
		t.Errorf("NoDriver: %s", diff)
	}
}

func TestFailedLoadIsNotRepeated(t *testing.T) {
	x, err := ReadIndex(modulesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	l := New(x, t.TempDir(), slog.New(slog.DiscardHandler))
	calls := 0
	l.init = func(string) error { calls++; return errors.New("no") }
	for range 2 {
		if l.Load("virtio_pci") == nil {
			t.Error("a failed dependency did not fail the module")
		}
	}
	if calls != 1 {
		t.Errorf("tried %d times; want 1", calls)
	}
}

func TestAddedAlias(t *testing.T) {
	for msg, want := range map[string]string{
		"add@/devices/x\x00ACTION=add\x00MODALIAS=usb:v0B95\x00": "usb:v0B95",
		"remove@/devices/x\x00MODALIAS=usb:v0B95\x00":            "",
		"add@/devices/x\x00": "",
		"":                   "",
	} {
		if got := addedAlias([]byte(msg)); got != want {
			t.Errorf("addedAlias(%q) = %q; want %q", msg, got, want)
		}
	}
}
