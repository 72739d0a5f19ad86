package library

import (
	"fmt"
	"os"
	"testing"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

// big makes the disk the figures of the design are for: 6 GiB, sparse, with 360 MiB of files on ext4.
func big(b *testing.B) string {
	b.Helper()
	k := fixture.New(b, testreq.Tool)
	tree := k.Path("tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range 36 {
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", tree, i), fixture.Random(uint64(i), 10*MiB), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	disk := k.Disk(6<<30, "label: gpt\nstart=2048,size=2048,type=21686148-6449-6E6F-744E-656564454649\nstart=4096,type=L\n", nil)
	// 6 GiB less 3 MiB, straight into the disk at its offset.
	k.Run("e2fsprogs", "", "mke2fs", "-q", "-F", "-t", "ext4", "-E", fmt.Sprintf("offset=%d", 2*MiB), "-d", tree, disk, fmt.Sprintf("%dk", (6<<20)-(3<<10)))
	return disk
}

func BenchmarkImport(b *testing.B) {
	disk := big(b)
	b.ResetTimer()
	for b.Loop() {
		l, _ := newLibrary(b)
		v, err := l.Import(b.Context(), ImportOptions{Name: "lab", File: disk})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(v.Manifest().ShippedBytes())
		b.ReportMetric(float64(v.Manifest().Pieces()), "cells")
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	l, _ := newLibrary(b)
	v, err := l.Import(b.Context(), ImportOptions{Name: "lab", File: big(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(v.Manifest().ShippedBytes())
	for b.Loop() {
		if res, err := v.Verify(b.Context(), nil); err != nil || !res.OK() {
			b.Fatal(res, err)
		}
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkReadPiece(b *testing.B) {
	l, _ := newLibrary(b)
	v, err := l.Import(b.Context(), ImportOptions{Name: "lab", File: big(b)})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, v.Manifest().Cell)
	b.SetBytes(int64(len(buf)))
	for i := 0; b.Loop(); i++ {
		if err := v.ReadPiece(i%v.Manifest().Pieces(), buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}
