package manifest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// SigSize is the length of manifest.sig: 8 bytes of key id and an ed25519 signature.
const SigSize = keyIDSize + ed25519.SignatureSize

const keyIDSize = 8

// domain keeps a manifest signature from ever being taken for an order signature.
const domain = "labswarm manifest v1\x00"

// ErrBadSignature is returned when a known key's signature does not fit the manifest.
var ErrBadSignature = errors.New("signature does not fit the manifest")

// UnknownKeyError is returned when a manifest was signed by a key that is not among the trusted ones.
type UnknownKeyError struct{ KeyID string }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("manifest is signed by key %s, which is not trusted here", e.KeyID)
}

func keyID(pub ed25519.PublicKey) []byte {
	sum := sha256.Sum256(pub)
	return sum[:keyIDSize]
}

// Sign returns manifest.sig for the exact bytes of manifest.json. It returns nil for a key of the wrong length.
func Sign(key ed25519.PrivateKey, manifestJSON []byte) []byte {
	if len(key) != ed25519.PrivateKeySize {
		return nil
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	sig := append(make([]byte, 0, SigSize), keyID(pub)...)
	return append(sig, ed25519.Sign(key, signed(manifestJSON))...)
}

// VerifySig checks manifest.sig against the trusted keys. It fails with UnknownKeyError or ErrBadSignature.
func VerifySig(pubs []ed25519.PublicKey, manifestJSON, sig []byte) error {
	if len(sig) != SigSize {
		return fmt.Errorf("verify manifest: signature has %d bytes; want %d", len(sig), SigSize)
	}
	for _, pub := range pubs {
		if len(pub) != ed25519.PublicKeySize || !bytes.Equal(keyID(pub), sig[:keyIDSize]) {
			continue
		}
		if !ed25519.Verify(pub, signed(manifestJSON), sig[keyIDSize:]) {
			return fmt.Errorf("verify manifest: %w", ErrBadSignature)
		}
		return nil
	}
	return fmt.Errorf("verify manifest: %w", &UnknownKeyError{KeyID: hex.EncodeToString(sig[:keyIDSize])})
}

func signed(manifestJSON []byte) []byte { return append([]byte(domain), manifestJSON...) }

// Digest returns the SHA-256 of manifest.json, by which an order names its image.
func Digest(manifestJSON []byte) [32]byte { return sha256.Sum256(manifestJSON) }
