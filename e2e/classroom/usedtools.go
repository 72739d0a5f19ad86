package classroom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// withPart calls use with a sparse copy of the partition at p: the tools below know
// no offsets.
func withPart(img io.ReaderAt, p span, use func(file string) error) (err error) {
	f, err := os.CreateTemp("", "labswarm-part-")
	if err != nil {
		return fmt.Errorf("copy partition: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := f.Truncate(p.to - p.from); err != nil {
		return fmt.Errorf("copy partition: %w", err)
	}
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := p.from; off < p.to; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), p.to-off)]
		if n, err := img.ReadAt(b, off); n < len(b) {
			return fmt.Errorf("copy partition: %w", err)
		}
		if bytes.Equal(b, zero[:len(b)]) {
			continue
		}
		if _, err := f.WriteAt(b, off-p.from); err != nil {
			return fmt.Errorf("copy partition: %w", err)
		}
	}
	return use(f.Name())
}

// tool runs a program and returns what it prints.
func tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w%s", name, err, stderrOf(err))
	}
	return out, nil
}

// number finds the group of re in out, a decimal number.
func number(out []byte, re string) (int64, error) {
	m := regexp.MustCompile(re).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("nothing like %q in what it says", re)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

// usedXFS asks xfs_db for the free extents; the rest is used.
func usedXFS(ctx context.Context, img io.ReaderAt, p span) (used []span, err error) {
	err = withPart(img, p, func(file string) error {
		sb, err := tool(ctx, "xfs_db", "-r", "-f", "-c", "sb 0", "-c", "p blocksize agblocks dblocks", file)
		if err != nil {
			return err
		}
		block, err1 := number(sb, `blocksize = (\d+)`)
		group, err2 := number(sb, `agblocks = (\d+)`)
		count, err3 := number(sb, `dblocks = (\d+)`)
		list, err4 := tool(ctx, "xfs_db", "-r", "-f", "-c", "freesp -d", file)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return err
		}
		var free []span // in blocks
		for line := range strings.Lines(string(list)) {
			var ag, from, n int64
			if k, err := fmt.Sscan(line, &ag, &from, &n); err == nil && k == 3 && len(strings.Fields(line)) == 3 {
				free = append(free, span{ag*group + from, ag*group + from + n})
			}
		}
		if len(free) == 0 {
			return errors.New("xfs_db named no free extents")
		}
		used = complement(free, count, block, p.from)
		return nil
	})
	return used, err
}

// usedNTFS reads the bitmap of clusters with ntfscat, and adds the copy of the boot
// sector at the partition's end.
func usedNTFS(ctx context.Context, img io.ReaderAt, p span) (used []span, err error) {
	err = withPart(img, p, func(file string) error {
		info, err := tool(ctx, "ntfsinfo", "-m", "-f", file)
		if err != nil {
			return err
		}
		cluster, err1 := number(info, `Cluster Size: (\d+)`)
		count, err2 := number(info, `Volume Size in Clusters: (\d+)`)
		bits, err3 := tool(ctx, "ntfscat", "-f", "-i", "6", file)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		if int64(len(bits))*8 < count {
			return fmt.Errorf("ntfscat gave %d bytes of bitmap for %d clusters", len(bits), count)
		}
		var free []span
		for i := range count {
			if bits[i/8]>>(i%8)&1 == 0 {
				free = append(free, span{i, i + 1})
			}
		}
		used = append(complement(free, count, cluster, p.from), span{p.to - 512, p.to})
		return nil
	})
	return used, err
}

// complement turns free blocks of count into the used bytes of a partition that
// begins at base.
func complement(free []span, count, block, base int64) (used []span) {
	slices.SortFunc(free, func(a, b span) int { return int(a.from - b.from) })
	next := int64(0)
	for _, f := range append(free, span{count, count}) {
		if f.from > next {
			used = append(used, span{base + next*block, base + f.from*block})
		}
		next = max(next, f.to)
	}
	return used
}
