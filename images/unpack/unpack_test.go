package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

const formatScript = `label: gpt
label-id: 5A3C6E1A-9F0B-4A55-8E5B-000000000001
start=2048,  size=8192,  type=L
`

// rawSize is odd on purpose: some formats round it.
const rawSize = 6*fixture.MiB + 7*512

// rawDisk makes a small disk with an ext4 of 4 MiB.
func rawDisk(t testing.TB, k *fixture.Kit) string {
	t.Helper()
	return k.Disk(rawSize, formatScript, map[int64]string{fixture.MiB: k.Ext(4*fixture.MiB, k.Tree(4, 20, 80<<10), "-t", "ext4", "-O", "^has_journal")})
}

// made is a source and how it is made of the raw disk.
type made struct {
	name string
	file func(k *fixture.Kit, raw string) string
	sums bool // the format carries checksums of its content
}

func byQemu(format string, options ...string) func(*fixture.Kit, string) string {
	return func(k *fixture.Kit, raw string) string {
		out := k.Path("disk." + format)
		k.Run("qemu-utils", "", "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", format}, options...), raw, out)...)
		return out
	}
}

func byPacker(pkg, name string, args ...string) func(*fixture.Kit, string) string {
	return func(k *fixture.Kit, raw string) string {
		copied := k.Slice(raw, 0, rawSize)
		k.Run(pkg, "", name, append(args, copied)...)
		for _, suffix := range []string{".gz", ".bz2", ".xz", ".zst"} {
			if _, err := os.Stat(copied + suffix); err == nil {
				// The name must not matter.
				if err := os.Rename(copied+suffix, copied); err != nil {
					panic(err)
				}
			}
		}
		return copied
	}
}

var allFormats = []made{
	{"gzip", byPacker("gzip", "gzip", "-1"), true},
	{"bzip2", byPacker("bzip2", "bzip2", "-1"), true},
	{"xz", byPacker("xz-utils", "xz", "-0"), true},
	{"zstd", byPacker("zstd", "zstd", "-q", "--rm", "-f"), true},
	{"qcow2", byQemu("qcow2"), false},
	{"qcow2 compressed", byQemu("qcow2", "-c"), false},
	{"VMDK", byQemu("vmdk"), false},
	{"VMDK stream", byQemu("vmdk", "-o", "subformat=streamOptimized"), false},
	{"VMDK flat", byQemu("vmdk", "-o", "subformat=monolithicFlat"), false},
	{"VHD", byQemu("vpc"), false},
	{"VHD fixed", byQemu("vpc", "-o", "subformat=fixed"), false},
	{"VHDX", byQemu("vhdx"), false},
	{"VDI", byQemu("vdi"), false},
}

func TestFormats(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	raw := rawDisk(t, k)
	want := mustRead(t, raw)
	for _, m := range allFormats {
		file := m.file(k, raw)
		before := mustRead(t, file)
		var done int64
		got, err := unpackAll(t, file, Options{Progress: func(n int64) { done += n }})
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d bytes; want %d", m.name, len(got), len(want))
		}
		sameBytes(t, m.name, got, want)
		if done == 0 {
			t.Errorf("%s: no progress", m.name)
		}
		sameBytes(t, m.name+": the source itself", mustRead(t, file), before)
	}
	if s, err := Open(raw); err != nil || !s.Raw() {
		t.Errorf("Open of the raw disk = %+v, %v", s, err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSplitVMDK is the layout of VMware's desktop programs: qemu opens these files itself, as nobody.
func TestSplitVMDK(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	raw := rawDisk(t, k)
	file := byQemu("vmdk", "-o", "subformat=twoGbMaxExtentSparse")(k, raw)
	extent := strings.TrimSuffix(file, ".vmdk") + "-s001.vmdk"
	if os.Geteuid() == 0 {
		_, err := unpackAll(t, file, Options{})
		if err == nil || !strings.Contains(err.Error(), "runs as nobody") {
			t.Errorf("files that nobody may read: %v", err)
		}
		for dir := filepath.Dir(file); strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range []string{file, extent} {
			if err := os.Chmod(f, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := unpackAll(t, file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "split VMDK", got, mustRead(t, raw))
	if err := os.Remove(extent); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), "s001.vmdk\" cannot be opened") {
		t.Errorf("a missing extent: %v", err)
	}
}

// damaged unpacks a source that is not what it was. Whatever happens, it must not be taken for the disk when the format
// can tell: cut = bytes are missing, which every format must notice.
func damaged(t *testing.T, m made, k *fixture.Kit, b, want []byte, what string, cut bool) {
	t.Helper()
	file := k.Path("damaged")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := unpackAll(t, file, Options{MaxSize: 64 * fixture.MiB})
	var e *Error
	var big *TooBigError
	switch {
	case errors.As(err, &e) || errors.As(err, &big):
	case err != nil:
		t.Errorf("%s, %s: %v is no *Error", m.name, what, err)
	case (cut || m.sums) && !bytes.Equal(got, want):
		t.Errorf("%s, %s: taken for a good disk", m.name, what)
	}
}

func TestDamaged(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	raw := rawDisk(t, k)
	want := mustRead(t, raw)
	for _, m := range allFormats {
		b := mustRead(t, m.file(k, raw))
		if m.name == "VMDK flat" { // a description: its fuzz test is FuzzVMDK
			continue
		}
		for _, n := range []int{100, len(b) / 2, len(b) - 512} {
			cut := b[:n]
			if m.name == "VHD fixed" && n != 100 {
				// Cut off it is a raw disk without an end, which the partition table tells.
				continue
			}
			if n == 100 && !m.sums {
				continue // too short to be recognised: not a disk at all, says the library
			}
			damaged(t, m, k, cut, want, fmt.Sprintf("cut at byte %d", n), true)
		}
		for _, at := range []int{9, len(b) / 2} {
			damaged(t, m, k, patch(b, at, b[at]^0x10), want, fmt.Sprintf("bit flipped at byte %d", at), false)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	raw := rawDisk(t, k)
	file := func(b string, n int) string {
		path := k.Path("file")
		if err := os.WriteFile(path, append([]byte(b), make([]byte, max(0, n-len(b)))...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	qemu := func(args ...string) string {
		out := k.Path("out")
		k.Run("qemu-utils", "", "qemu-img", append(args, out)...)
		return out
	}
	qcow := byQemu("qcow2")(k, raw)
	data := k.Path("data.raw")
	outside := file("RW 12295 SPARSE \"../other.vmdk\"\n", 0)
	cd := file("", 0x9000)
	write(t, cd, 0x8001, "CD001")
	long := k.Path("long.zst")
	k.Run("zstd", strings.Repeat("x", 1<<20), "zstd", "-q", "--long=30", "-o", long)
	vmdkDelta := "# Disk DescriptorFile\nCID=1\nparentCID=fffffff0\nRW 8 FLAT \"x\" 0\n"
	for name, c := range map[string]struct{ file, want string }{
		"backing file":   {qemuCreate(k, "-b", qcow, "-F", "qcow2"), "its base"},
		"data file":      {qemu("create", "-q", "-f", "qcow2", "-o", "size=20M,data_file_raw=on,data_file="+data), "another file"},
		"encrypted":      {qemu("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "size=20M,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"), "encrypted"},
		"VMDK delta":     {file(vmdkDelta, 0), "its base"},
		"extent outside": {file("# Disk DescriptorFile\n"+string(mustRead(t, outside)), 0), "own folder"},
		"extent missing": {file("# Disk DescriptorFile\nRW 8 FLAT \"gone.vmdk\" 0\n", 0), "cannot be opened"},
		"device extent":  {file("# Disk DescriptorFile\nRW 8 VMFSRDM \"x.vmdk\"\n", 0), "of kind VMFSRDM"},
		"WIM":            {file("MSWIM\x00\x00\x00", 4096), "install it once"},
		"ISO":            {cd, "install it once"},
		"zip":            {file("PK\x03\x04", 4096), "archive"},
		"7z":             {file("7z\xbc\xaf\x27\x1c", 4096), "archive"},
		"lz4":            {file("\x04\x22\x4d\x18", 4096), "lz4"},
		"partclone":      {file("partclone-image\x00", 4096), "Clonezilla's folder"},
		"folder":         {t.TempDir(), "none of Clonezilla's"},
		"not a header":   {file("vhdxfile", 100), "cut off"},
		"zstd window":    {long, "without --long"},
		"xz dictionary":  {file("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x28\x00\x00\x00", 64), "dictionary of 4.00 GiB"},
	} {
		_, err := unpackAll(t, c.file, Options{})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want an *Error with %q", name, err, c.want)
		}
	}
}

func qemuCreate(k *fixture.Kit, args ...string) string {
	out := k.Path("out")
	k.Run("qemu-utils", "", "qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, append(args, out)...)...)
	return out
}

func write(t testing.TB, path string, off int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), off)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// children lists the processes that this test started and that still live.
func children(t testing.TB) (list []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone in the meantime
		}
		_, rest, _ := bytes.Cut(b, []byte(") "))
		var state string
		var parent int
		if _, err := fmt.Sscan(string(rest), &state, &parent); err == nil && parent == os.Getpid() {
			list = append(list, string(b))
		}
	}
	return list
}

// Every way to end in the middle: nothing is left, no program runs on, the cause is what is reported.
func TestEndsInTheMiddle(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	raw := rawDisk(t, k)
	_, cz := k.ClonezillaMBR()
	sources := map[string]string{"zstd": allFormats[3].file(k, raw), "xz": allFormats[2].file(k, raw), "qcow2": byQemu("qcow2")(k, raw), "VHDX": byQemu("vhdx")(k, raw),
		"flat": byQemu("vmdk", "-o", "subformat=monolithicFlat")(k, raw), "Clonezilla": cz}
	full := errors.New("no room")
	for name, file := range sources {
		s, err := Open(file)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		_, err = s.Unpack(ctx, Options{Dir: dir, Progress: func(int64) { cancel() }})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: %v", name, err)
		}
		_, err = s.Unpack(t.Context(), Options{Dir: dir, Room: func() error { return full }})
		if !errors.Is(err, full) {
			t.Errorf("%s: without room: %v", name, err)
		}
		var big *TooBigError
		if _, err = s.Unpack(t.Context(), Options{Dir: dir, MaxSize: 2 * fixture.MiB}); !errors.As(err, &big) {
			t.Errorf("%s: more than is allowed: %v", name, err)
		}
		if ents, err := os.ReadDir(dir); err != nil || len(ents) > 0 {
			t.Errorf("%s: left %v, %v", name, ents, err)
		}
		if left := children(t); left != nil {
			t.Errorf("%s: still running: %q", name, left)
		}
		write(t, filepath.Join(s.in[len(s.in)-1].Name()), 0, "x")
		if err := s.Changed(); err == nil || !strings.Contains(err.Error(), "written to") {
			t.Errorf("%s: changed: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMissingPrograms(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	file := byQemu("qcow2")(k, rawDisk(t, k))
	t.Setenv("PATH", t.TempDir())
	_, err := unpackAll(t, file, Options{})
	var missing *MissingError
	if !errors.As(err, &missing) || missing.Package != "qemu-utils" || !strings.Contains(err.Error(), "apt-get install qemu-utils") {
		t.Errorf("without qemu-img: %v", err)
	}
}

// A few bytes that unpack to very many stop at the limit.
func TestBomb(t *testing.T) {
	t.Parallel()
	k := fixture.New(t, testreq.Tool)
	one := k.Sparse("zero", 64*fixture.MiB)
	k.Run("zstd", "", "zstd", "-q", "--rm", one)
	frame := mustRead(t, one+".zst")
	bomb := k.Path("bomb")
	if err := os.WriteFile(bomb, bytes.Repeat(frame, 1000), 0o600); err != nil { // 62 GiB
		t.Fatal(err)
	}
	var big *TooBigError
	if _, err := unpackAll(t, bomb, Options{MaxSize: 200 * fixture.MiB}); !errors.As(err, &big) || !strings.Contains(err.Error(), "--max-size") {
		t.Errorf("bomb: %v", err)
	}
}

// qemu-img and the rest must have no more rights than they need.
func TestChildHasNoRights(t *testing.T) {
	testreq.Tool(t, "setpriv", "util-linux")
	w, err := newWork(t.Context(), Options{Dir: t.TempDir(), Room: func() error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := &child{helper: helper{"cat", "coreutils"}, what: "a test", args: []string{"/proc/self/status", "/proc/self/limits"}, fsize: 4096}
	if err := w.run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	out := strings.Join(strings.Fields(string(c.out)), " ")
	for _, want := range []string{"NoNewPrivs: 1", "CapEff: 0000000000000000", "CapPrm: 0000000000000000", "Max file size 4096 4096", fmt.Sprintf("Max address space %d", childMemory)} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, c.out)
		}
	}
	if os.Geteuid() == 0 && !strings.Contains(out, "Uid: 65534 65534 65534 65534") {
		t.Errorf("runs as root: %s", c.out)
	}
}
