package finalise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"labswarm/images/fsmap/ntfs"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/personalise"
)

// windows puts the PC's name into the answer files of the Windows systems on the disk, which Windows Setup reads at the
// first start of a sysprepped image. No driver is needed: the bytes of the file are replaced where they lie, by as many
// others, and nothing of NTFS itself changes. It runs while the disk is held exclusively.
func (r *run) windows(j job) error {
	if len(j.windows) == 0 {
		return nil
	}
	named := false
	for _, t := range j.windows {
		r.Say("looking at " + t.name())
		ok, err := r.answerFiles(t)
		if err != nil {
			return fmt.Errorf("computer name in %s: %w", t.name(), err)
		}
		named = named || ok
	}
	if named {
		return nil
	}
	r.warn(`Windows keeps the computer name that the image has: no answer file (\Windows\Panther\unattend.xml) with a ComputerName in its specialize pass`)
	if j.esp == nil {
		r.warn("the image has no EFI partition for labswarm\\host.json either")
	}
	return nil
}

// answerFiles changes all answer files of one volume; named tells whether there was one with a name.
func (r *run) answerFiles(t partition) (named bool, err error) {
	for _, path := range personalise.AnswerFiles {
		file, err := r.find1(t, path)
		if errors.Is(err, ntfs.ErrNotFound) {
			continue
		}
		if err != nil {
			return named, err
		}
		name := `\` + strings.Join(path, `\`)
		want, found, err := personalise.Unattend(file.Content, r.Host.Name)
		if err != nil {
			return named, fmt.Errorf("%s: %w", name, err)
		}
		if !found {
			continue
		}
		named = true
		if bytes.Equal(want, file.Content) {
			continue
		}
		r.Say("personalising " + t.name())
		if err := r.overwrite(t, file.Parts, want); err != nil {
			return named, fmt.Errorf("write %s: %w", name, err)
		}
		again, err := r.find1(t, path)
		if err != nil {
			return named, fmt.Errorf("read back: %w", err)
		}
		if !bytes.Equal(again.Content, want) {
			return named, fmt.Errorf("%s reads back different from what was written", name)
		}
		r.Log.Info("personalised", "partition", t.span.N, "file", name, "host", r.Host.Name)
	}
	return named, nil
}

// find1 looks for a file past every cache.
func (r *run) find1(t partition, path []string) (_ *ntfs.File, err error) {
	at, err := r.d.At()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	v, err := ntfs.Open(io.NewSectionReader(at, t.span.Start, t.span.Size), t.span.Size)
	if err != nil {
		return nil, err
	}
	return v.Find(personalise.MaxAnswerFile, path...)
}

// overwrite replaces the bytes at some places of a partition, in blocks that O_DIRECT takes, and makes them durable.
func (r *run) overwrite(t partition, parts []manifest.Extent, content []byte) (err error) {
	buf, err := disk.Buffer(disk.Align)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.FreeBuffer(buf)) }()
	for _, p := range parts {
		if p.Off < 0 || p.Len < 0 || p.Off > t.span.Size-p.Len || p.Len > int64(len(content)) {
			return fmt.Errorf("%d bytes at %d do not lie in the partition", p.Len, p.Off)
		}
		for from := t.span.Start + p.Off; p.Len > 0; {
			block := from / disk.Align * disk.Align
			if err := r.d.ReadAt(buf, block); err != nil {
				return err
			}
			n := min(p.Len, block+disk.Align-from)
			if !bytes.Equal(buf[from-block:from-block+n], content[:n]) {
				copy(buf[from-block:], content[:n])
				if err := r.d.WriteCell(buf, block); err != nil {
					return err
				}
			}
			content, from, p.Len = content[n:], from+n, p.Len-n
		}
	}
	if len(content) > 0 {
		return fmt.Errorf("%d bytes have no place", len(content))
	}
	return r.d.Flush()
}
