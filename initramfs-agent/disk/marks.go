package disk

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/images/fsmap/part"
	"labswarm/images/fsmap/sig"
)

// look fills in what foreign data a disk carries. A disk that cannot be read is
// marked as such: nobody knows what is on it.
func (s *Set) look(d *api.Disk) {
	d.Foreign = nil
	if diskrule.Excluded(*d) != "" {
		return
	}
	fd, direct, err := openDirect(s.sys.Path(*d), unix.O_RDONLY)
	if err == nil {
		r := &Reader{fd: fd, name: d.Name, size: d.Bytes, direct: direct}
		d.Foreign, err = s.marks(*d, r)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		d.Foreign = []api.Mark{{Kind: api.MarkUnreadable, Where: fmt.Sprintf("%.120s", err.Error())}}
	}
}

// marks looks for foreign data through an open descriptor.
func (s *Set) marks(d api.Disk, r *Reader) ([]api.Mark, error) {
	found, err := sig.Disk(&plain{r: r}, r.size, d.Sector, s.sys.Partitions(d.Name))
	if err != nil {
		return nil, err
	}
	var out []api.Mark
	for _, m := range found {
		where := "the whole disk"
		if m.Part > 0 {
			where = part.DeviceName(d.Name, m.Part)
		}
		out = append(out, api.Mark{Kind: m.Kind, Off: m.Off, At: m.At, Where: where})
	}
	return out, nil
}

// plain is an io.ReaderAt over a Reader, whose buffers and offsets must be
// aligned. For small reads only.
type plain struct {
	r *Reader

	mu sync.Mutex
}

const plainStep = 64 << 10 // bytes per read

// ReadAt implements io.ReaderAt.
func (p *plain) ReadAt(b []byte, off int64) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	buf, err := Buffer(plainStep)
	if err != nil {
		return 0, err
	}
	defer FreeBuffer(buf) //nolint:errcheck // only address space
	for n < len(b) {
		at := off + int64(n)
		if at < 0 || at >= p.r.size {
			return n, io.EOF
		}
		from := at / Align * Align
		if err := p.r.ReadAt(buf[:min(plainStep, (p.r.size-from+Align-1)/Align*Align)], from); err != nil {
			return n, err
		}
		n += copy(b[n:], buf[at-from:min(plainStep, p.r.size-from)])
	}
	return n, nil
}
