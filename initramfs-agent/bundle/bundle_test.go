package bundle_test

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"labswarm/api"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/bundle"
)

// TestLoadRefuses changes one thing in each file of an image.
func TestLoadRefuses(t *testing.T) {
	im, other := agenttest.New(t, agenttest.Options{}), agenttest.New(t, agenttest.Options{Seed: 1})
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, at int) []byte {
		c := append([]byte(nil), b...)
		c[at] ^= 1
		return c
	}
	for _, tt := range []struct {
		name string
		file string
		data []byte
		keys []ed25519.PublicKey
	}{
		{"manifest changed", "manifest.json", flip(im.Files["manifest.json"], 30), im.Keys},
		{"signature changed", "manifest.sig", flip(im.Files["manifest.sig"], 20), im.Keys},
		{"signature of another image", "manifest.sig", other.Files["manifest.sig"], append(im.Keys, other.Keys...)},
		{"key not pinned", "", nil, []ed25519.PublicKey{stranger}},
		{"no keys", "", nil, nil},
		{"torrent of another image", "image.torrent", other.Files["image.torrent"], im.Keys},
		{"torrent changed", "image.torrent", flip(im.Files["image.torrent"], len(im.Files["image.torrent"])/2), im.Keys},
		{"torrent cut", "image.torrent", im.Files["image.torrent"][:100], im.Keys},
	} {
		fetch := func(name string, limit int64) ([]byte, error) {
			if name == tt.file {
				return tt.data, nil
			}
			return im.File(name, limit)
		}
		var f *api.Fault
		if _, err := bundle.Load(fetch, tt.keys, im.Bundle.Digest); !errors.As(err, &f) || f.Code != api.CodeBadImage {
			t.Errorf("%s: %v; want code %s", tt.name, err, api.CodeBadImage)
		}
	}
	lost := errors.New("lost")
	for _, name := range []string{"manifest.json", "manifest.sig", "image.torrent"} {
		fetch := func(n string, limit int64) ([]byte, error) {
			if n == name {
				return nil, lost
			}
			return im.File(n, limit)
		}
		if _, err := bundle.Load(fetch, im.Keys, im.Bundle.Digest); !errors.Is(err, lost) {
			t.Errorf("%s not to be had: %v", name, err)
		}
	}
}
