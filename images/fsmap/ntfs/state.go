package ntfs

import (
	"bytes"
	"fmt"
	"strings"

	"labswarm/images/fsmap/scan"
	"labswarm/images/manifest"
)

// Flags of $VOLUME_INFORMATION.
const (
	volumeDirty    = 0x0001
	chkdskUnderway = 0x4000
)

// state tells how Windows or Linux left the volume, worst first, and its label.
func (v *volume) state() (name string, st manifest.State, why string, err error) {
	rec, err := v.readRecord(recVolume)
	if err != nil {
		return "", "", "", err
	}
	if name, err = label(rec); err != nil {
		return "", "", "", err
	}
	asleep, err := v.hibernated()
	switch {
	case known(err): // nobody can tell whether Windows sleeps
		return name, manifest.StateDirty, "its root folder cannot be read: run chkdsk in Windows", err
	case err != nil:
		return name, "", "", err
	case asleep:
		return name, manifest.StateHibernated, "Windows is hibernated or uses fast startup: in Windows run 'powercfg /h off', then 'shutdown /s /t 0'", nil
	}
	info, ok, err := rec.find(attrVolumeInfo, "", 0)
	if err != nil {
		return name, "", "", err
	}
	if !ok || len(info.value) < 12 {
		return name, "", "", fmt.Errorf("NTFS $Volume has no flags: %w", scan.ErrCorrupt)
	}
	if flags := le.Uint16(info.value[10:]); flags&(volumeDirty|chkdskUnderway) != 0 {
		return name, manifest.StateDirty, fmt.Sprintf("Windows marked it for a check (flags 0x%04x): run chkdsk and shut Windows down with 'shutdown /s /t 0'", flags), nil
	}
	why, err = v.logOpen()
	if why != "" {
		return name, manifest.StateDirty, why, nil
	}
	return name, manifest.StateClean, "", err
}

// logOpen says why the journal $LogFile may hold changes that are not written yet; "" when it does not. Only its
// two restart pages are looked at (ntfs_is_logfile_clean in ntfs-3g does the same).
func (v *volume) logOpen() (string, error) {
	rec, err := v.readRecord(recLogFile)
	if err != nil {
		return "", err
	}
	var s stream
	if err := v.open(&s, rec, attrData, ""); err != nil {
		return "", fmt.Errorf("NTFS $LogFile: %w", err)
	}
	const page = 4096
	b := make([]byte, 2*page)
	if s.size < int64(len(b)) {
		return "", fmt.Errorf("NTFS $LogFile of %d bytes: %w", s.size, scan.ErrCorrupt)
	}
	if err := s.readAt(v, b, 0); err != nil {
		return "", fmt.Errorf("read NTFS $LogFile: %w", err)
	}
	if len(bytes.Trim(b, "\xff")) == 0 {
		return "", nil // emptied by Linux
	}
	newest, lsn, seen := false, uint64(0), false
	for _, p := range [][]byte{b[:page], b[page:]} {
		clean, at, ok := restartPage(p)
		if ok && (!seen || at > lsn) {
			newest, lsn, seen = clean, at, true
		}
	}
	switch {
	case !seen:
		return "its journal has no restart page that can be read: let Windows check it with chkdsk", nil
	case !newest:
		return "its journal is open (mounted, not shut down, or fast startup): start Windows and shut it down with 'shutdown /s /t 0'", nil
	}
	return "", nil
}

// restartPage reads a restart page: whether its journal was closed, and its sequence number.
func restartPage(p []byte) (clean bool, lsn uint64, ok bool) {
	if undoFixups(p, "RSTR") != nil {
		return false, 0, false
	}
	area := int(le.Uint16(p[24:]))
	if area < 30 || area+16 > len(p) {
		return false, 0, false
	}
	const noClient, volumeClean = 0xffff, 2
	a := p[area:]
	clean = le.Uint16(a[12:]) == noClient || le.Uint16(a[14:])&volumeClean != 0
	// Windows 8 and later write version 2 while a volume is in use or sleeps, and go back to 1 when they let it go.
	return clean && le.Uint16(p[28:]) < 2, le.Uint64(a), true
}

// hibernated tells whether the root folder has a hiberfil.sys that Windows will wake from.
func (v *volume) hibernated() (bool, error) {
	rec, err := v.readRecord(recRoot)
	if err != nil {
		return false, err
	}
	refs, err := v.lookUp(rec, "hiberfil.sys")
	if err != nil {
		return false, err
	}
	if len(refs) > 64 {
		return false, fmt.Errorf("NTFS folder has %d entries of one name: %w", len(refs), scan.ErrCorrupt)
	}
	for _, ref := range refs {
		file, err := v.readRecord(int64(ref & (1<<48 - 1)))
		if err != nil || le.Uint16(file.b[16:]) != uint16(ref>>48) {
			if err != nil && !known(err) {
				return false, err
			}
			continue // an old entry of a free index block; its record is somebody else's now
		}
		var s stream
		if err := v.open(&s, file, attrData, ""); err != nil {
			return false, fmt.Errorf("NTFS hiberfil.sys: %w", err)
		}
		if s.size < 4 || s.valid < 4 || (len(s.runs) > 0 && s.runs[0].lcn < 0) {
			continue // empty
		}
		var magic [4]byte
		if err := s.readAt(v, magic[:], 0); err != nil {
			return false, fmt.Errorf("read NTFS hiberfil.sys: %w", err)
		}
		switch strings.ToUpper(string(magic[:])) {
		case "HIBR", "RSTR", "HORM": // saved, being restored, saved for many wakings; WAKE = awake
			return true, nil
		}
	}
	return false, nil
}

// maxIndex limits how much of the root folder is searched, in bytes.
const maxIndex = 16 << 20

// lookUp returns the file references of all entries of a folder with this name, in any case. It goes through all
// index blocks instead of descending the tree, whose order depends on the volume's own upper-case table.
func (v *volume) lookUp(dir *record, name string) ([]uint64, error) {
	var refs []uint64
	root, ok, err := dir.find(attrIndexRoot, "$I30", 0)
	if err != nil {
		return nil, err
	}
	if !ok || !root.resident || len(root.value) < 32 {
		return nil, fmt.Errorf("NTFS folder has no index: %w", scan.ErrCorrupt)
	}
	size := int64(le.Uint32(root.value[8:]))
	if refs, ok = entries(refs, root.value[16:], name); !ok {
		return nil, fmt.Errorf("NTFS folder: index root: %w", scan.ErrCorrupt)
	}
	if le.Uint32(root.value[28:])&1 == 0 { // no index blocks
		return refs, nil
	}
	var s stream
	if err := v.open(&s, dir, attrIndexAlloc, "$I30"); err != nil {
		return nil, fmt.Errorf("NTFS folder: %w", err)
	}
	if size < fixup || size > 64<<10 || size&(size-1) != 0 || s.size > maxIndex {
		return nil, fmt.Errorf("NTFS folder: %d bytes in index blocks of %d: %w", s.size, size, scan.ErrUnsupported)
	}
	b := make([]byte, size)
	for off := int64(0); off+size <= s.size; off += size {
		if err := s.readAt(v, b, off); err != nil {
			return nil, fmt.Errorf("read NTFS folder: %w", err)
		}
		if string(b[:4]) != "INDX" {
			continue // never used
		}
		if err := undoFixups(b, "INDX"); err != nil {
			return nil, fmt.Errorf("NTFS folder, byte %d: %w", off, err)
		}
		if refs, ok = entries(refs, b[24:], name); !ok {
			return nil, fmt.Errorf("NTFS folder, index block at byte %d: %w", off, scan.ErrCorrupt)
		}
	}
	return refs, nil
}

// entries appends the references of the entries with this name. b starts with the index header.
func entries(refs []uint64, b []byte, name string) ([]uint64, bool) {
	if len(b) < 16 {
		return nil, false
	}
	end := min(int64(le.Uint32(b[4:])), int64(len(b)))
	for off := int64(le.Uint32(b)); off+16 <= end; {
		e := b[off:end]
		n := int64(le.Uint16(e[8:]))
		if le.Uint16(e[12:])&2 != 0 {
			return refs, true
		}
		if n < 16 || n%8 != 0 || n > int64(len(e)) {
			return nil, false
		}
		const nameAt = 16 + 66 // behind the entry's header and the fixed part of $FILE_NAME
		if n >= nameAt {
			s, ok := text16(e[:n], nameAt, int(e[nameAt-2]))
			if !ok {
				return nil, false
			}
			if strings.EqualFold(s, name) {
				refs = append(refs, le.Uint64(e))
			}
		}
		off += n
	}
	return nil, false
}
