//go:build integration

package deploy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"labswarm/api/order"
	"labswarm/images/fixture"
	"labswarm/images/fixture/mounted"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/internal/testreq"
)

// section is one partition of a generated disk.
type section struct {
	kind    string  // a key of filesystems, or fat12, fat16, fat32, swap, raw (random bytes that no reader knows), none
	mib     int64   // its size
	typ     string  // in words of sfdisk
	share   float64 // how full
	maxFile int     // bytes; small files make many pieces
	opts    []string
	logical bool // in the extended partition of an MBR
}

var filesystems = map[string]mounted.FS{"ext4": mounted.Ext, "xfs": mounted.XFS, "btrfs": mounted.Btrfs, "ntfs": mounted.NTFS, "exfat": mounted.ExFAT}

// layout is a generated disk.
type layout struct {
	name   string
	label  string // gpt or dos
	sector int
	parts  []section
	pieces int // used extents there must be at least
}

const (
	typeLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	typeSwap  = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
	typeESP   = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeData  = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
	typeMSR   = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
	typeWinRE = "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
	typeBIOS  = "21686148-6449-6E6F-744E-656564454649"
)

var layouts = []layout{
	{"gpt, ext4 fragmented, swap", "gpt", 512, []section{
		{kind: "raw", mib: 1, typ: typeBIOS}, {kind: "fat16", mib: 20, typ: typeESP}, {kind: "swap", mib: 8, typ: typeSwap},
		{kind: "ext4", mib: 48, typ: typeLinux, share: 0.6, maxFile: 30 << 10}}, 0},
	{"gpt, ext4 of 1 KiB blocks, heavily fragmented", "gpt", 512, []section{
		{kind: "ext4", mib: 64, typ: typeLinux, share: 0.7, maxFile: 5 << 10, opts: []string{"-b", "1024", "-O", "meta_bg,^resize_inode"}},
		{kind: "swap", mib: 8, typ: typeSwap}}, 4097}, // beyond what a manifest lists itself
	{"gpt, xfs", "gpt", 512, []section{
		{kind: "fat16", mib: 20, typ: typeESP}, {kind: "xfs", mib: 300, typ: typeLinux, share: 0.1, maxFile: 60 << 10}}, 0},
	{"gpt, xfs of 1 KiB blocks, fragmented", "gpt", 512, []section{
		{kind: "xfs", mib: 64, typ: typeLinux, share: 0.5, maxFile: 5 << 10, opts: []string{"-b", "size=1024", "-l", "size=5m"}},
		{kind: "exfat", mib: 32, typ: typeData, share: 0.5, maxFile: 20 << 10, opts: []string{"-c", "4096"}}}, 0},
	{"gpt, btrfs", "gpt", 512, []section{
		{kind: "fat32", mib: 36, typ: typeESP}, {kind: "btrfs", mib: 232, typ: typeLinux, share: 0.2, maxFile: 60 << 10}}, 0},
	{"gpt, windows", "gpt", 512, []section{
		{kind: "fat32", mib: 36, typ: typeESP}, {kind: "none", mib: 16, typ: typeMSR},
		{kind: "ntfs", mib: 24, typ: typeData, share: 0.6, maxFile: 9 << 10, opts: []string{"-c", "512"}},
		{kind: "ntfs", mib: 16, typ: typeWinRE, share: 0.3, maxFile: 90 << 10}}, 0},
	{"mbr with logical partitions", "dos", 512, []section{
		{kind: "ext4", mib: 32, typ: "83, bootable", share: 0.5, maxFile: 60 << 10}, {kind: "swap", mib: 4, typ: "82", logical: true},
		{kind: "fat16", mib: 20, typ: "6", logical: true}, {kind: "ext4", mib: 24, typ: "83", share: 0.4, maxFile: 30 << 10, logical: true}}, 0},
	{"mbr, windows, nearly full", "dos", 512, []section{
		{kind: "ntfs", mib: 16, typ: "7, bootable", share: 0.3, maxFile: 60 << 10}, {kind: "ntfs", mib: 40, typ: "7", share: 0.97, maxFile: 90 << 10}}, 0},
	{"mbr, fat of all kinds", "dos", 512, []section{
		{kind: "fat12", mib: 4, typ: "1"}, {kind: "fat16", mib: 20, typ: "6"}, {kind: "fat32", mib: 36, typ: "c"}, {kind: "raw", mib: 3, typ: "da"}}, 0},
	{"4Kn, ext4 nearly full, swap", "gpt", 4096, []section{
		{kind: "fat16", mib: 24, typ: typeESP}, {kind: "swap", mib: 8, typ: typeSwap},
		{kind: "ext4", mib: 48, typ: typeLinux, share: 0.98, maxFile: 60 << 10}}, 0},
	{"4Kn, xfs nearly full, btrfs nearly full", "gpt", 4096, []section{
		{kind: "btrfs", mib: 64, typ: typeLinux, share: 0.8, maxFile: 60 << 10, opts: []string{"-M"}},
		{kind: "xfs", mib: 64, typ: typeLinux, share: 0.97, maxFile: 90 << 10, opts: []string{"-m", "rmapbt=1"}}}, 0},
	{"4Kn, windows, exfat nearly full", "gpt", 4096, []section{
		{kind: "none", mib: 16, typ: typeMSR}, {kind: "exfat", mib: 32, typ: typeData, share: 0.97, maxFile: 200 << 10},
		{kind: "ntfs", mib: 40, typ: typeData, share: 0.6, maxFile: 60 << 10}}, 0},
}

// TestLayouts is the whole way of an image for every kind of disk: a disk that was in use becomes an image as
// `labswarm image import` makes it; the agent brings it to a bigger disk that is full of something else; then every
// checker is content and every file is what it was.
func TestLayouts(t *testing.T) {
	testreq.Root(t)
	mounted.Sweep(t)
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			l.need(t)
			t.Parallel()
			mounted.OwnMounts(t)
			b := build(t, l)
			im := agenttest.FromDisk(t, b.file)
			if err := b.deploy(t, im); err != nil {
				t.Error(err)
			}
			if l.name != layouts[0].name {
				return
			}
			// The control: what a reader that overlooks used bytes would make of it. The agent cannot know, and proves
			// the disk; whoever looks at the files does.
			lost := b.inFile(t, im.Bundle.Manifest.Used())
			err := b.deploy(t, im.Without(t, lost))
			if err == nil {
				t.Fatalf("%d bytes at %d were left out of the image, and nobody noticed", lost.Len, lost.Off)
			}
			t.Logf("without the used extent of %d bytes at %d: %.200v", lost.Len, lost.Off, err)
		})
	}
}

// need skips the test where a filesystem cannot be mounted.
func (l *layout) need(t *testing.T) {
	t.Helper()
	for _, s := range l.parts {
		if fs, ok := filesystems[s.kind]; ok {
			testreq.Filesystem(t, fs.Kernel)
			testreq.Tool(t, fs.RW[0], fs.Package)
		}
	}
}

// built is a generated disk with its content.
type built struct {
	layout
	k     *fixture.Kit
	dir   string
	file  string  // raw disk
	size  int64   // bytes
	start []int64 // of each section, bytes
}

// build makes the disk, its filesystems used as far and as badly as the layout says.
func build(t *testing.T, l layout) *built {
	t.Helper()
	b := &built{layout: l, k: fixture.New(t, testreq.Tool), dir: mounted.WorkDir(t)}
	b.file = filepath.Join(b.dir, "disk.raw")
	var script strings.Builder
	fmt.Fprintf(&script, "label: %s\n", l.label)
	at, extended := int64(1), false
	for i, s := range l.parts {
		if s.logical && !extended {
			rest := int64(0)
			for _, s := range l.parts[i:] {
				rest += s.mib + 1
			}
			fmt.Fprintf(&script, "start=%d, size=%d, type=5\n", b.sectors(at), b.sectors(rest))
			extended = true
		}
		if s.logical {
			at++ // the record of a logical partition
		}
		fmt.Fprintf(&script, "start=%d, size=%d, type=%s\n", b.sectors(at), b.sectors(s.mib), s.typ)
		b.start = append(b.start, at<<20)
		at += s.mib
	}
	b.size = (at + 1) << 20
	if err := os.WriteFile(b.file, fixture.Random(9, 440), 0o600); err != nil { // boot code
		t.Fatal(err)
	}
	if err := os.Truncate(b.file, b.size); err != nil {
		t.Fatal(err)
	}
	dev, detach := mounted.Attach(t, b.file, l.sector)
	b.k.Run("fdisk", script.String(), "sfdisk", "-q", "--no-reread", "--no-tell-kernel", dev)
	detach()
	for i, s := range l.parts {
		if file := b.fill(t, s); file != "" {
			b.k.Put(b.file, b.start[i], file)
		}
	}
	return b
}

func (b *built) sectors(mib int64) int64 { return mib << 20 / int64(b.sector) }

// fill makes the content of a section.
func (b *built) fill(t *testing.T, s section) string {
	t.Helper()
	switch s.kind {
	case "none":
		return ""
	case "swap":
		return b.k.Swap(s.mib << 20)
	case "raw":
		file := b.k.Path("raw")
		if err := os.WriteFile(file, fixture.Random(7, int(s.mib<<20)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	case "fat12", "fat16", "fat32":
		bits, err := strconv.Atoi(s.kind[3:])
		if err != nil {
			t.Fatal(err)
		}
		cluster := map[string]string{"fat12": "4"}[s.kind] // sectors; small ones, so that there are enough for its kind
		if cluster == "" {
			cluster = "1"
		}
		file := b.k.FAT(s.mib<<20, bits, b.k.Tree(uint64(bits), 30, int(s.mib<<20)/60), "-S", strconv.Itoa(b.sector), "-s", cluster)
		b.k.ChurnFAT(file, 30)
		return file
	}
	fs := filesystems[s.kind]
	file := b.k.Sparse(s.kind, s.mib<<20)
	dev, detach := mounted.Attach(t, file, b.sector)
	b.k.Run(fs.Package, "", fs.Mkfs[0], append(append(slices.Clone(fs.Mkfs[1:]), s.opts...), dev)...)
	unmount := mounted.Mount(t, dev, filepath.Join(b.dir, "mnt"), fs.RW...)
	fs.Decorate(t, filepath.Join(b.dir, "mnt"))
	mounted.Churn(t, filepath.Join(b.dir, "mnt"), 77, s.share, s.maxFile)
	unmount()
	detach()
	return file
}

// deploy brings an image to a bigger disk full of something else, and returns in what it differs from the disk it was
// made from. What is wrong with the deployment itself fails the test.
func (b *built) deploy(t *testing.T, im *agenttest.Image) error {
	t.Helper()
	m := im.Bundle.Manifest
	s := agenttest.NewServer(t, im)
	s.Order = func(o *order.Order) { o.Personalise = order.PersonaliseOff } // all files are to be equal
	l := agenttest.NewLoop(t, bytes.Repeat([]byte{0xA5}, int(b.size+29<<20+3*4096)), "-b", strconv.Itoa(b.sector))
	out, err := Run(t.Context(), config(t, s, loops(l.Name)))
	r, tab := deployed(t, s, l, out, err)
	warned := strings.Join(r.Warnings, "\n")
	for i, p := range m.Parts {
		if p.Grow && p.FS == "ext4" && !agenttest.MayGrowExt(t) {
			if !strings.Contains(warned, "operation not permitted") {
				t.Errorf("warnings %q; want that the kernel does not permit to grow ext4", r.Warnings)
			}
			warned = ""
		}
		if want := b.parts[i]; want.kind != "raw" && want.kind != "none" && (p.Map != "reader" && p.FS != "swap" || !p.Clean || p.UsedBytes >= p.Size) {
			t.Errorf("partition %d (%s): map %s of %d bytes, clean %v", p.N, want.kind, p.Map, p.UsedBytes, p.Clean)
		}
		full := float64(p.UsedBytes) / float64(p.Size)
		if b.parts[i].share > 0.9 && full < 0.7 { // XFS keeps much back
			t.Errorf("partition %d: %.0f %% used; want it nearly full", p.N, 100*full)
		}
		t.Logf("partition %d: %s, %.0f %% used, grows %v", p.N, b.parts[i].kind, 100*full, p.Grow)
	}
	if n := len(m.Used()); n < b.pieces {
		t.Errorf("%d used extents; want %d or more", n, b.pieces)
	}
	if warned != "" {
		t.Errorf("warnings: %s", warned)
	}
	t.Logf("%d extents, %d cells shipped, %d written", len(m.Used()), m.Pieces(), r.CellsWritten)
	b.tables(t, l)
	return b.compare(t, l.File, m, tab)
}

// tables lets another program look at the partition tables.
func (b *built) tables(t *testing.T, l *agenttest.Loop) {
	t.Helper()
	if b.label == "gpt" {
		gdisk(t, l)
		return
	}
	if out := b.k.Run("fdisk", "", "sfdisk", "--verify", l.Dev); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk --verify:\n%s", out)
	}
}
