// Package config holds what a server is told once: where its state lies and
// which keys it has. The daemon and the command line use it.
package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Keys are the two private keys of a site (ed25519, RFC 8032).
type Keys struct {
	Server ed25519.PrivateKey // TLS and orders
	Image  ed25519.PrivateKey // manifests
}

// ServerPublic returns the key that agents pin for TLS and orders.
func (k *Keys) ServerPublic() ed25519.PublicKey { return k.Server.Public().(ed25519.PublicKey) }

// ImagePublic returns the key that agents pin for images.
func (k *Keys) ImagePublic() ed25519.PublicKey { return k.Image.Public().(ed25519.PublicKey) }

// LoadKeys reads <stateDir>/keys/{server,image}.key and makes the ones that are
// missing, mode 0600. Two processes may do so at once: the first file wins.
func LoadKeys(stateDir string) (*Keys, error) {
	dir := filepath.Join(stateDir, "keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	server, err := loadOrMake(filepath.Join(dir, "server.key"))
	if err != nil {
		return nil, err
	}
	image, err := loadOrMake(filepath.Join(dir, "image.key"))
	if err != nil {
		return nil, err
	}
	return &Keys{Server: server, Image: image}, nil
}

func loadOrMake(path string) (ed25519.PrivateKey, error) {
	key, err := load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := write(path); err != nil {
		return nil, err
	}
	return load(path)
}

func load(path string) (ed25519.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("read key %q: not one PEM block PRIVATE KEY; put the saved copy back, a new key would lock out every terminal's initramfs", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %q: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %q: not an ed25519 key", path)
	}
	return key, nil
}

// write makes a new key under a temporary name and links it into place, so that
// the file is complete from the moment it exists.
func write(path string) (err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("make key file: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key %q: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write key %q: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %q: %w", dir, err)
	}
	return nil
}
