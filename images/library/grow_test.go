package library

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

func TestMarkGrow(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	const linux, data = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
	for _, tc := range []struct {
		name, script string
		fs           []string
		want         int // number of the partition that grows
	}{
		{"Linux root last", "label: gpt\nsize=8192,type=U\ntype=" + linux, []string{"fat32", "ext4"}, 2},
		{"root on XFS", "label: gpt\ntype=" + linux, []string{"xfs"}, 1},
		{"root on Btrfs", "label: gpt\ntype=" + linux, []string{"btrfs"}, 1},
		{"numbered out of order", "label: gpt\n2: size=8192,type=" + linux + "\n1: type=" + linux, []string{"ext4", "ext4"}, 1},
		{"Windows data last", "label: gpt\nsize=8192,type=U\ntype=" + data, []string{"fat32", "ntfs"}, 2},
		{"Windows with its recovery last", "label: gpt\nsize=8192,type=" + data + "\ntype=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", []string{"ntfs", "ntfs"}, 0},
		{"swap last", "label: gpt\nsize=8192,type=" + linux + "\ntype=S", []string{"ext4", "swap"}, 0},
		{"LUKS last", "label: gpt\ntype=" + linux, []string{"luks"}, 0},
		{"EFI partition last", "label: gpt\nsize=8192,type=" + linux + "\ntype=U", []string{"ext4", "ext4"}, 0},
		{"MBR, primary", "label: dos\nsize=8192,type=83\ntype=83", []string{"ext4", "ext4"}, 2},
		{"MBR, Windows", "label: dos\ntype=7", []string{"ntfs"}, 1},
		{"MBR, logical", "label: dos\nsize=8192,type=83\ntype=5\ntype=83", []string{"ext4", "ext4"}, 0},
	} {
		b, err := os.ReadFile(k.Disk(32<<20, tc.script+"\n", nil))
		if err != nil {
			t.Fatal(err)
		}
		tab, err := part.Read(bytes.NewReader(b), int64(len(b)), 512)
		if err != nil || len(tab.Parts) != len(tc.fs) {
			t.Fatalf("%s: %d partitions, %v", tc.name, len(tab.Parts), err)
		}
		var parts []manifest.Part
		for i, e := range tab.Parts {
			parts = append(parts, manifest.Part{N: e.N, Start: e.Start, Size: e.Size, Type: strings.ToLower(e.Type), FS: tc.fs[i]})
		}
		markGrow(tab, parts)
		got := 0
		for _, p := range parts {
			if p.Grow {
				got = got*100 + p.N
			}
		}
		if got != tc.want {
			t.Errorf("%s: partition %d grows; want %d", tc.name, got, tc.want)
		}
	}
}
