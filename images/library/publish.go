package library

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"labswarm/images/manifest"
	"labswarm/images/metainfo"
)

// publish writes the small files beside disk.raw and renames the folder to its version. The library's lock makes the
// version number and the rename one step, also against another process.
func (j *importJob) publish(tmp *temp) (string, error) {
	unlock, err := j.lib.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	versions, err := j.lib.taken(j.opt.Name)
	if err != nil {
		return "", err
	}
	version := nextVersion(versions, time.Now())
	files, m, err := j.encode(version)
	if err != nil {
		return "", err
	}
	if !slices.Contains(j.opt.Force, ForceUnchanged) {
		if version, err := j.unchanged(tmp, m); version != "" || err != nil {
			return version, err
		}
	}
	if j.frames != nil {
		if err := j.finishFrames(manifest.Digest(files[manifestFile])); err != nil {
			return "", err
		}
	}
	for _, name := range []string{usedFile, hashesFile, hooksFile, torrentFile, manifestFile, sigFile} {
		if data := files[name]; data != nil {
			if err := writeSynced(filepath.Join(tmp.dir, name), data); err != nil {
				return "", err
			}
		}
	}
	if err := syncDir(tmp.dir); err != nil {
		return "", err
	}
	return version, tmp.rename(j.lib, j.opt.Name, version)
}

// unchanged looks whether the newest version holds the same content: an UnchangedError then, or when that version lacks
// compressed cells and this import has made them, they are added to it and its name is returned.
func (j *importJob) unchanged(tmp *temp, m *manifest.Manifest) (version string, err error) {
	v, err := j.lib.newest(j.opt.Name)
	if v == nil || err != nil {
		return "", err
	}
	defer func() { err = closeInto(err, v.Close()) }()
	if !sameContent(v.man, m) {
		return "", nil
	}
	same := &UnchangedError{Name: j.opt.Name, Version: v.man.Version}
	if j.frames == nil || v.frames != nil {
		return "", same
	}
	if err := j.finishFrames(v.Digest()); err != nil {
		return "", err
	}
	if err := installFrames(tmp.dir, v.dir); err != nil {
		return "", err
	}
	j.opt.Warn(fmt.Sprintf("the content is that of version %s, which had no compressed cells: they are added to it, no new version was made", v.man.Version))
	return v.man.Version, nil
}

func (j *importJob) finishFrames(digest [32]byte) error {
	w := j.frames
	j.frames = nil
	return w.finish(digest)
}

// encode makes all files of the version and loads them again the way every reader does.
func (j *importJob) encode(version string) (map[string][]byte, *manifest.Manifest, error) {
	files := map[string][]byte{}
	torrent, infohash, err := metainfo.Build(j.opt.Name+"-"+version, j.cell, j.sums.sha1)
	if err != nil {
		return nil, nil, err
	}
	m := &manifest.Manifest{
		Format: manifest.Format, Name: j.opt.Name, Version: version, Base: j.base.version(), Created: time.Now().UTC().Truncate(time.Second),
		Disk:  j.plan.disk,
		Cell:  j.cell,
		Parts: j.plan.parts, Cells: j.sums.data, Zero: j.sums.zero,
		InfoHash: hex.EncodeToString(infohash[:]), Boot: j.plan.boot, OSHint: j.opt.OSHint, Codec: CodecNone,
		Forced: append([]string{}, j.plan.force...),
	}
	if j.frames != nil {
		m.Codec = CodecZstd
	}
	if len(j.plan.used) <= manifest.InlineUsed {
		m.UsedList = j.plan.used
	} else {
		if files[usedFile], err = manifest.EncodeUsed(j.plan.used); err != nil {
			return nil, nil, err
		}
		m.UsedBlob = blob(files[usedFile], int64(len(j.plan.used)))
	}
	if len(j.sums.sha1) <= manifest.InlineCells {
		m.HashList = j.sums.sha256
	} else {
		files[hashesFile] = j.sums.sha256
		m.HashesBlob = blob(j.sums.sha256, 0)
	}
	m.Personalise, files[hooksFile] = j.hooks(m.Parts)
	text, err := m.Marshal()
	if err != nil {
		return nil, nil, err
	}
	loaded, err := manifest.Load(text, files[usedFile], files[hashesFile])
	if err != nil {
		return nil, nil, fmt.Errorf("check the new manifest: %w", err)
	}
	if _, err := loaded.AttachHooks(files[hooksFile]); err != nil {
		return nil, nil, err
	}
	files[manifestFile], files[torrentFile] = text, torrent
	files[sigFile] = manifest.Sign(j.lib.key, text)
	return files, loaded, nil
}

func blob(data []byte, count int64) *manifest.Blob {
	sum := sha256.Sum256(data)
	return &manifest.Blob{SHA256: hex.EncodeToString(sum[:]), Len: int64(len(data)), Count: count}
}

// sameContent compares what two manifests say of the disk: everything but the version's own names.
func sameContent(a, b *manifest.Manifest) bool {
	content := func(m manifest.Manifest) []byte {
		m.Version, m.Base, m.Created, m.InfoHash, m.Forced, m.OSHint, m.Codec = "", "", time.Time{}, "", nil, "", ""
		text, err := m.Marshal()
		if err != nil {
			return nil
		}
		return text
	}
	x := content(*a)
	return x != nil && bytes.Equal(x, content(*b))
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
