// Package relay lets the swarm read and write one disk as pieces: the disk's
// side of the data plane. Cell 0 goes to the disk without its head, which is
// kept in memory until the table is written at the very end.
//
// It decides nothing: whom to fetch from is the tracker's word, when to write
// is package writer's. Called by package writer and by swarm/peer.
package relay

import (
	"fmt"
	"sync"
	"sync/atomic"

	"labswarm/initramfs-agent/bundle"
)

// Disk is where pieces lie: disk.Writable, or memory in tests.
type Disk interface {
	ReadAt(buf []byte, off int64) error
	WriteCell(buf []byte, off int64) error
}

// Storage is a peer.Storage over a disk.
type Storage struct {
	b    *bundle.Bundle
	d    Disk
	head int64 // bytes of cell 0 that are not on the disk yet
	have []bool

	written atomic.Int64 // pieces written through this storage

	mu    sync.RWMutex
	cell0 []byte // whole cell 0 of the image; empty until it is known
}

// New returns a storage of which the pieces in have are right on the disk.
// cell0 is the image's cell 0 when have[0] is true, else nil.
func New(b *bundle.Bundle, d Disk, head int64, have []bool, cell0 []byte) *Storage {
	return &Storage{b: b, d: d, head: head, have: have, cell0: cell0}
}

// Have reports whether a piece was on the disk from the start.
func (s *Storage) Have(piece int) bool { return s.have[piece] }

// Cell0 returns the image's own cell 0, nil when it has not arrived. It must
// not be changed.
func (s *Storage) Cell0() []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cell0
}

// Written is the number of pieces written so far.
func (s *Storage) Written() int { return int(s.written.Load()) }

// ReadPiece reads a piece back and masks what the image does not use. The
// swarm hashes it before it leaves this host.
func (s *Storage) ReadPiece(piece int, buf []byte) error {
	m := s.b.Manifest
	cell := m.CellOf(piece)
	if cell < 0 || int64(len(buf)) != m.Cell {
		return fmt.Errorf("read piece %d: no such piece of %d bytes", piece, len(buf))
	}
	if err := s.d.ReadAt(buf, cell*m.Cell); err != nil {
		return err
	}
	if cell == 0 {
		head := s.Cell0()
		if head == nil {
			return fmt.Errorf("read piece %d: its head is not known yet", piece)
		}
		copy(buf[:s.head], head)
	}
	s.b.Masker.Mask(buf, cell*m.Cell)
	return nil
}

// WritePiece writes a piece whose hash has been checked, in one write.
func (s *Storage) WritePiece(piece int, buf []byte) error {
	m := s.b.Manifest
	cell := m.CellOf(piece)
	if cell < 0 || int64(len(buf)) != m.Cell {
		return fmt.Errorf("write piece %d: no such piece of %d bytes", piece, len(buf))
	}
	if cell > 0 {
		if err := s.d.WriteCell(buf, cell*m.Cell); err != nil {
			return err
		}
		s.written.Add(1)
		return nil
	}
	if err := s.d.WriteCell(buf[s.head:], s.head); err != nil {
		return err
	}
	keep := append([]byte(nil), buf...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cell0 = keep
	s.written.Add(1)
	return nil
}
