package disk

import "bytes"

// Medium is what the steps below need of a disk: the real one, or one in memory whose power fails between any two of
// them. Buffers come from Buffer, offsets are multiples of the sector.
type Medium interface {
	Size() int64
	Pwrite(buf []byte, off int64) error
	ReadAt(buf []byte, off int64) error
	Flush() error
}

// raw is the Medium of a device. Nobody outside this package can get one.
type raw struct{ *Writable }

func (r raw) Pwrite(buf []byte, off int64) error { return r.pwrite(buf, off) }

// ClearTables takes away every partition table: the first head bytes and the last MiB of the disk become zero, and
// are so on the medium when it returns.
func ClearTables(m Medium, head int64) error {
	zero, err := Buffer(Tail)
	if err != nil {
		return err
	}
	defer FreeBuffer(zero) //nolint:errcheck // only address space
	for off := int64(0); off < head; off += Tail {
		if err := m.Pwrite(zero[:min(Tail, head-off)], off); err != nil {
			return err
		}
	}
	if tail := max(m.Size()-Tail, head); tail < m.Size() {
		if err := m.Pwrite(zero[:m.Size()-tail], tail); err != nil {
			return err
		}
	}
	return m.Flush()
}

// PutTables writes the backup table at the end of the disk (may be empty) and, when that is on the medium, the head
// with the primary one: a disk with a primary table is a finished disk. Each is read back; same tells whether both
// came back as they were written.
func PutTables(m Medium, head, backup []byte) (same bool, err error) {
	if len(backup) > 0 {
		if same, err := writeChecked(m, backup, m.Size()-int64(len(backup))); err != nil || !same {
			return false, err
		}
	}
	return writeChecked(m, head, 0)
}

// writeChecked writes, flushes, reads back and compares.
func writeChecked(m Medium, data []byte, off int64) (same bool, err error) {
	buf, err := Buffer(int64(len(data)))
	if err != nil {
		return false, err
	}
	defer FreeBuffer(buf) //nolint:errcheck // only address space
	copy(buf, data)
	if err := m.Pwrite(buf, off); err != nil {
		return false, err
	}
	if err := m.Flush(); err != nil {
		return false, err
	}
	clear(buf)
	if err := m.ReadAt(buf, off); err != nil {
		return false, err
	}
	return bytes.Equal(buf, data), nil
}
