package finalise

import (
	"slices"
	"strings"
	"testing"

	"labswarm/api/order"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
)

// TestPlan: which partitions are touched, and which never.
func TestPlan(t *testing.T) {
	p := func(n int, typ, fs, os string, grow bool) manifest.Part {
		return manifest.Part{N: n, Start: int64(n) << 30, Size: 1 << 30, Type: typ, FS: fs, OS: os, Grow: grow}
	}
	const linux = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	debian := []manifest.Part{p(1, part.TypeBIOSBoot, "none", "", false), p(2, part.TypeESP, "fat", "", false), p(3, linux, "swap", "", false), p(4, linux, "ext4", "linux", true)}
	windows := []manifest.Part{p(1, part.TypeESP, "fat", "", false), p(2, part.TypeMSR, "none", "", false), p(3, "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "ntfs", "windows", true)}
	for _, tt := range []struct {
		name    string
		parts   []manifest.Part
		more    int64 // bytes that the last one has grown by
		policy  string
		grow    int
		roots   []int
		esp     int
		windows int // the one that may hold a Windows; 0 = none
		skip    string
	}{
		{name: "Debian", parts: debian, policy: order.PersonaliseRequire, roots: []int{4}},
		{name: "Debian, bigger disk", parts: debian, more: 1 << 30, policy: order.PersonaliseTry, grow: 4, roots: []int{4}},
		{name: "Debian, off", parts: debian, policy: order.PersonaliseOff},
		{name: "Debian, off, bigger disk", parts: debian, more: 1 << 30, policy: order.PersonaliseOff, grow: 4},
		{name: "Windows", parts: windows, more: 1 << 30, policy: order.PersonaliseRequire, esp: 1, windows: 3},
		{name: "Windows, off", parts: windows, policy: order.PersonaliseOff},
		{name: "Windows for BIOS", parts: []manifest.Part{p(1, "07", "ntfs", "windows", false)}, policy: order.PersonaliseRequire, windows: 1},
		{name: "LUKS", parts: []manifest.Part{p(1, part.TypeESP, "fat", "", false), p(2, linux, "ext4", "linux", false), p(3, linux, "luks", "", false)}, policy: order.PersonaliseRequire, roots: []int{2}, skip: "does not open LUKS"},
		{name: "unknown", parts: []manifest.Part{p(1, linux, "unknown", "", true)}, more: 1 << 30, policy: order.PersonaliseRequire},
		{name: "three Linux filesystems", parts: []manifest.Part{p(1, linux, "ext2", "linux", false), p(2, linux, "btrfs", "linux", false), p(3, linux, "xfs", "linux", false)}, policy: order.PersonaliseRequire, roots: []int{1, 2, 3}},
	} {
		now := slices.Clone(tt.parts)
		now[len(now)-1].Size += tt.more
		j := plan(&manifest.Manifest{Parts: tt.parts}, now, tt.policy)
		got := func(x *partition) int {
			if x == nil {
				return 0
			}
			if x.span.Start != now[x.span.N-1].Start || x.span.Size != now[x.span.N-1].Size {
				t.Errorf("%s: partition %d is at %+v; want its place on this disk", tt.name, x.span.N, x.span)
			}
			return x.span.N
		}
		var roots []int
		for i := range j.roots {
			roots = append(roots, got(&j.roots[i]))
		}
		if got(j.grow) != tt.grow || got(j.esp) != tt.esp || !slices.Equal(roots, tt.roots) {
			t.Errorf("%s: grows %d, roots %v, host file on %d; want %d, %v, %d", tt.name, got(j.grow), roots, got(j.esp), tt.grow, tt.roots, tt.esp)
		}
		if text := strings.Join(j.skip, "; "); !strings.Contains(text, tt.skip) || (text == "") != (tt.skip == "") {
			t.Errorf("%s: skipped %q; want %q", tt.name, text, tt.skip)
		}
		windows := 0
		for i := range j.windows {
			windows = got(&j.windows[i])
		}
		if windows != tt.windows {
			t.Errorf("%s: Windows on %d; want %d", tt.name, windows, tt.windows)
		}
		if n := len(j.spans()); (n == 0) != (tt.grow == 0 && tt.esp == 0 && tt.roots == nil) {
			t.Errorf("%s: %d partitions are announced", tt.name, n)
		}
	}
}
