package bootenv

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"labswarm/api/order"
)

// PinsPath is where the server's cpio puts the pinned keys.
const PinsPath = "/etc/labswarm/pins.json"

const (
	maxPins     = 64 << 10 // bytes of pins.json
	maxPinnings = 16       // keys of one kind
)

// Pins are the public keys this boot trusts: sets, so that a key can be rolled
// without a day on which nothing boots.
type Pins struct {
	ServerKeys []ed25519.PublicKey // TLS and orders
	ImageKeys  []ed25519.PublicKey // manifests
}

// ParsePins reads pins.json strictly. It fails on an unknown field, a key that
// is not 32 bytes of base64, and an empty set: an agent that trusts nobody has
// no work, one that trusts a truncated list must not guess.
func ParsePins(raw []byte) (Pins, error) {
	var file struct {
		ServerKeys []string `json:"server_keys"`
		ImageKeys  []string `json:"image_keys"`
	}
	if len(raw) > maxPins {
		return Pins{}, fmt.Errorf("read pinned keys: %d bytes, at most %d", len(raw), maxPins)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return Pins{}, fmt.Errorf("read pinned keys: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Pins{}, errors.New("read pinned keys: data after the object")
	}
	server, err := keys("server_keys", file.ServerKeys)
	if err != nil {
		return Pins{}, err
	}
	image, err := keys("image_keys", file.ImageKeys)
	if err != nil {
		return Pins{}, err
	}
	return Pins{ServerKeys: server, ImageKeys: image}, nil
}

func keys(name string, list []string) ([]ed25519.PublicKey, error) {
	if len(list) == 0 || len(list) > maxPinnings {
		return nil, fmt.Errorf("read pinned keys: %s has %d keys, want 1 to %d", name, len(list), maxPinnings)
	}
	out := make([]ed25519.PublicKey, 0, len(list))
	for _, text := range list {
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("read pinned keys: %s: %.48q is not %d bytes of base64", name, text, ed25519.PublicKeySize)
		}
		out = append(out, b)
	}
	return out, nil
}

// ServerKey returns the pinned server key with the id kid, nil when there is
// none.
func (p Pins) ServerKey(kid string) ed25519.PublicKey {
	for _, k := range p.ServerKeys {
		if order.KeyID(k) == kid {
			return k
		}
	}
	return nil
}
