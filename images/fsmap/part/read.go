package part

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const gptSignature = "EFI PART"

// Read reads the table of a whole disk of size bytes. sector is the device's logical sector, or 0 for a file, where
// 512 is assumed unless a GPT says 4096. It fails with ErrNoTable, ErrDamaged, ErrHybrid, ErrUnsupported or
// TruncatedError. A missing or different backup GPT is a warning: it is rebuilt on every disk written.
func Read(r io.ReaderAt, size int64, sector int) (*Table, error) {
	t, err := readPrimary(r, size, sector)
	if err != nil {
		return nil, err
	}
	var containers []Entry
	if t.Label == "mbr" {
		if containers, err = t.readLogical(r); err != nil {
			return nil, err
		}
	} else {
		t.checkBackup(r)
	}
	if err := t.finish(containers); err != nil {
		return nil, err
	}
	return t, nil
}

// ReadHead reads the table from the first bytes of a disk alone (at least HeadSize of them, or the whole cell 0).
// It does not follow extended boot records and does not look at the backup GPT, which is enough for Adapt.
// size is the size in bytes of the disk the head belongs to.
func ReadHead(head []byte, size int64, sector int) (*Table, error) {
	t, err := readPrimary(bytes.NewReader(head), size, sector)
	if err != nil {
		return nil, err
	}
	var containers []Entry
	t.Parts, containers = splitExtended(t.Parts)
	if len(t.Parts) == 0 { // only logical partitions: the extended one stands for them
		t.Parts, containers = containers, nil
	}
	if err := t.finish(containers); err != nil {
		return nil, err
	}
	return t, nil
}

func readPrimary(r io.ReaderAt, size int64, sector int) (*Table, error) {
	if sector != 0 && sector != 512 && sector != 4096 {
		return nil, fmt.Errorf("read partition table: sector of %d bytes: %w", sector, ErrUnsupported)
	}
	boot, err := readAt(r, 0, 512)
	if err != nil {
		return nil, fmt.Errorf("read partition table: sector 0: %w", err)
	}
	mbr := parseMBR(boot)
	if mbr == nil {
		return nil, fmt.Errorf("read partition table: %w", ErrNoTable)
	}
	protects, others := -1, 0
	for i, e := range mbr {
		switch {
		case e.kind == 0xEE:
			protects = i
		case e.kind != 0:
			others++
		}
	}
	if protects < 0 {
		return mbrTable(boot, mbr, size, max(sector, 512))
	}
	if others > 0 {
		return nil, fmt.Errorf("read partition table: %w", ErrHybrid)
	}
	t, err := readGPT(r, size, sector)
	if err != nil {
		return nil, err
	}
	if t.boot, err = readAt(r, 0, t.Sector); err != nil {
		return nil, fmt.Errorf("read partition table: sector 0: %w", err)
	}
	t.protects = protects
	return t, nil
}

// readAt reads exactly n bytes.
func readAt(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if got == n {
		return b, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}
