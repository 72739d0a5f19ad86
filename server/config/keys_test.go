package config

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLoadKeysMakesOnceAndKeeps(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	got := make([]*Keys, 8)
	for i := range got {
		wg.Go(func() {
			k, err := LoadKeys(dir)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = k
		})
	}
	wg.Wait()
	for _, k := range got[1:] {
		if k == nil || !k.Server.Equal(got[0].Server) || !k.Image.Equal(got[0].Image) {
			t.Fatal("LoadKeys gave different keys to processes that start at once")
		}
	}
	if got[0].Server.Equal(got[0].Image) {
		t.Error("server key and image key are the same")
	}
	for _, name := range []string{"server.key", "image.key"} {
		st, err := os.Stat(filepath.Join(dir, "keys", name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, st.Mode(), err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "keys", ".key-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
}

func TestLoadKeysRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keys", "server.key")
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("LoadKeys on a damaged key = %v; want an error naming the file", err)
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "garbage" {
		t.Error("the damaged key was overwritten")
	}
}
