package personalise

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"labswarm/initramfs-agent/volume"
)

// Key is one SSH host key.
type Key struct {
	Private []byte // OpenSSH's own PEM form
	Public  string // "type base64"
}

const rsaBits = 3072 // OpenSSH's default

// NewKey makes a key of a kind: ed25519, ecdsa or rsa.
func NewKey(kind, comment string) (Key, error) {
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		err = fmt.Errorf("kind %q is unknown", kind)
	}
	if err != nil {
		return Key{}, fmt.Errorf("make SSH host key: %w", err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return Key{}, fmt.Errorf("make SSH host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return Key{}, fmt.Errorf("make SSH host key: %w", err)
	}
	return Key{Private: pem.EncodeToMemory(block), Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))}, nil
}

const sshDir = "etc/ssh"

// sshKeys replaces the host keys of a system that has an SSH server. RSA keys
// take seconds to make and are only made where there was one.
func sshKeys(p *Plan, r Root, h Host, newKey func(kind, comment string) (Key, error)) error {
	names, err := r.Names(sshDir)
	if err != nil {
		return err
	}
	var old []string
	for _, n := range names {
		if !strings.HasPrefix(n, "ssh_host_") {
			continue
		}
		k, _, err := r.Lstat(path.Join(sshDir, n))
		if err != nil {
			return err
		}
		if k == volume.File || k == volume.Link {
			old = append(old, n)
		}
	}
	if len(old) == 0 && !slices.Contains(names, "sshd_config") {
		return nil
	}
	kinds := []string{"ed25519", "ecdsa"}
	if slices.Contains(old, "ssh_host_rsa_key") {
		kinds = append(kinds, "rsa")
	}
	mine := map[string]bool{}
	for _, kind := range kinds {
		name := "ssh_host_" + kind + "_key"
		comment := "root@" + h.Name
		key, err := newKey(kind, comment)
		if err != nil {
			return err
		}
		// A link is replaced itself: what it leads to may be shared.
		p.put(path.Join(sshDir, name), key.Private, volume.Meta{Mode: 0o600})
		p.put(path.Join(sshDir, name+".pub"), []byte(key.Public+" "+comment+"\n"), plainFile)
		mine[name], mine[name+".pub"] = true, true
		p.HostKeys = append(p.HostKeys, key.Public)
	}
	for _, n := range old {
		if !mine[n] { // other kinds, and certificates over the old keys
			p.remove(path.Join(sshDir, n))
		}
	}
	return nil
}
