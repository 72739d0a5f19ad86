package part

import (
	"testing"

	"labswarm/images/manifest"
)

func TestMarkGrow(t *testing.T) {
	const linux, data = "0fc63daf-8483-4772-8e79-3d69d8477de4", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
	// p is the n-th of partitions that stand one behind the other, 1 MiB each.
	p := func(n int, typ, fs string) manifest.Part { return manifest.Part{N: n, Type: typ, FS: fs} }
	for _, tc := range []struct {
		name  string
		label string
		parts []manifest.Part
		rest  int64 // of an extended partition behind them, bytes
		want  int   // number of the partition that grows
	}{
		{"Linux root last", "gpt", []manifest.Part{p(1, TypeESP, "fat32"), p(2, linux, "ext4")}, 0, 2},
		{"root on XFS", "gpt", []manifest.Part{p(1, linux, "xfs")}, 0, 1},
		{"root on Btrfs", "gpt", []manifest.Part{p(1, linux, "btrfs")}, 0, 1},
		{"numbered out of order", "gpt", []manifest.Part{p(2, linux, "ext4"), p(1, linux, "ext4")}, 0, 1},
		{"Windows data last", "gpt", []manifest.Part{p(1, TypeESP, "fat32"), p(2, TypeMSR, "none"), p(3, data, "ntfs")}, 0, 3},
		{"Windows with its recovery last", "gpt", []manifest.Part{p(1, data, "ntfs"), p(2, TypeWinRE, "ntfs")}, 0, 0},
		{"swap last", "gpt", []manifest.Part{p(1, linux, "ext4"), p(2, "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "swap")}, 0, 0},
		{"LUKS last", "gpt", []manifest.Part{p(1, linux, "luks")}, 0, 0},
		{"nobody knows what is last", "gpt", []manifest.Part{p(1, linux, "ext4"), p(2, linux, "unknown")}, 0, 0},
		{"EFI partition last", "gpt", []manifest.Part{p(1, linux, "ext4"), p(2, TypeESP, "ext4")}, 0, 0},
		{"MBR, primary", "mbr", []manifest.Part{p(1, "83", "ext4"), p(2, "83", "ext4")}, 0, 2},
		{"MBR, Windows", "mbr", []manifest.Part{p(1, "07", "ntfs")}, 0, 1},
		{"MBR, Windows with its recovery last", "mbr", []manifest.Part{p(1, "07", "ntfs"), p(2, "27", "ntfs")}, 0, 0},
		{"MBR, logical", "mbr", []manifest.Part{p(1, "83", "ext4"), p(5, "83", "ext4")}, 0, 0},
		{"MBR, an extended one goes on behind", "mbr", []manifest.Part{p(1, "83", "ext4"), p(2, "83", "ext4")}, 1 << 20, 0},
	} {
		end := int64(1 << 20)
		for i := range tc.parts {
			tc.parts[i].Start, tc.parts[i].Size = end, 1<<20
			end += 1 << 20
		}
		MarkGrow(&Table{Label: tc.label, end: end + tc.rest}, tc.parts)
		got := 0
		for _, p := range tc.parts {
			if p.Grow {
				got = got*100 + p.N
			}
		}
		if got != tc.want {
			t.Errorf("%s: partition %d grows; want %d", tc.name, got, tc.want)
		}
	}
}
