package library

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/images/metainfo"
)

// TestTorrentOfAnotherImage: a torrent that is whole, but not the one that the
// signed manifest names, is refused: nothing of such a version is served.
func TestTorrentOfAnotherImage(t *testing.T) {
	l, v := imported(t, ImportOptions{})
	path := filepath.Join(v.Dir(), torrentFile)
	hashes := append([][20]byte(nil), v.Torrent().Hashes...)
	for name, change := range map[string]func() (name string, cell int64, h [][20]byte){
		"one other hash": func() (string, int64, [][20]byte) {
			h := append([][20]byte(nil), hashes...)
			h[3][0] ^= 1
			return "lab-" + v.Version(), v.man.Cell, h
		},
		"a piece less":     func() (string, int64, [][20]byte) { return "lab-" + v.Version(), v.man.Cell, hashes[1:] },
		"other cells":      func() (string, int64, [][20]byte) { return "lab-" + v.Version(), 2 * v.man.Cell, hashes },
		"of other content": func() (string, int64, [][20]byte) { return "other", v.man.Cell, hashes },
	} {
		file, cell, h := change()
		b, _, err := metainfo.Build(file, cell, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if w, err := l.Get("lab", ""); err == nil || !strings.Contains(err.Error(), "not the one the manifest names") {
			t.Errorf("%s: Get = %v, %v; want it refused", name, w, err)
		}
	}
}
