package unpack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"labswarm/internal/units"
)

// wrapAlign is where the partition begins and what everything is rounded up to, as partitioning programs do; bytes.
const wrapAlign = units.MiB

// Wrap puts a GPT with one partition around a bare filesystem of size bytes. fs is its name as fsmap gives it. The
// GUIDs are made of the content, so that the same filesystem gives the same disk again. The result is as that of
// Source.Unpack, in Options.Dir.
func Wrap(ctx context.Context, r io.ReaderAt, size int64, fs string, o Options) (f *os.File, err error) {
	o.defaults()
	w, err := newWork(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := w.wrap(ctx, r, size, fs); err != nil {
		return nil, errors.Join(w.cause(ctx, err), w.Close())
	}
	return w.File, nil
}

func (w *work) wrap(ctx context.Context, r io.ReaderAt, size int64, fs string) error {
	part := (size + wrapAlign - 1) / wrapAlign * wrapAlign
	if err := w.resize("the wrapped partition", part+2*wrapAlign); err != nil {
		return err
	}
	head := make([]byte, min(size, 64<<10))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the partition: %w", err)
	}
	if err := w.give(); err != nil {
		return err
	}
	script := fmt.Sprintf("label: gpt\nlabel-id: %s\nunit: sectors\n\nstart=%d, size=%d, type=%s, uuid=%s\n",
		contentGUID("disk", head), wrapAlign/czSector, part/czSector, wrapType(fs), contentGUID("partition", head))
	c := &child{helper: sfdisk, what: "wrapping a partition", stdin: strings.NewReader(script), files: []*os.File{w.File}, fsize: part + 2*wrapAlign,
		args: []string{"-q", "--no-reread", "--no-tell-kernel", "-w", "never", "-W", "never", "/proc/self/fd/3"}}
	if err := w.run(ctx, c); err != nil {
		return err
	}
	n, err := w.copyIn(&counter{r: io.NewSectionReader(r, 0, size), w: w}, wrapAlign, size)
	if err != nil {
		return fmt.Errorf("copy the partition at byte %d: %w", n, err)
	}
	if n != size {
		return fmt.Errorf("copy the partition: it ended at byte %d of %d", n, size)
	}
	return nil
}

// wrapType is the partition type that systems expect for a filesystem.
func wrapType(fs string) string {
	switch fs {
	case "ntfs", "exfat", "fat12", "fat16", "fat32":
		return "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
	case "swap":
		return "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
	}
	return "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
}

// contentGUID makes a GUID of version 8, free form (RFC 9562, 5.8), of what and the content.
func contentGUID(what string, content []byte) string {
	sum := sha256.Sum256(append([]byte("labswarm wrap "+what+"\x00"), content...))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
