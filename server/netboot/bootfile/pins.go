package bootfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/u-root/u-root/pkg/cpio"
)

// PinsPath is where the agent reads its pinned keys.
const PinsPath = "etc/labswarm/pins.json"

// initrdAlign: the kernel looks for the next archive on a 4-byte boundary and
// skips zero bytes; boot loaders are happiest with whole sectors.
const initrdAlign = 512

// pinsDoc is pins.json: raw 32-byte ed25519 public keys in base64.
type pinsDoc struct {
	ServerKeys []string `json:"server_keys"`
	ImageKeys  []string `json:"image_keys"`
}

// PinsJSON makes the pins.json document from raw ed25519 public keys. At least
// one server key and one image key are needed: an agent without pins trusts
// nobody and would only stop.
func PinsJSON(serverKeys, imageKeys [][]byte) ([]byte, error) {
	var doc pinsDoc
	for _, set := range []struct {
		name string
		keys [][]byte
		to   *[]string
	}{{"server", serverKeys, &doc.ServerKeys}, {"image", imageKeys, &doc.ImageKeys}} {
		if len(set.keys) == 0 {
			return nil, fmt.Errorf("write pins: no %s key", set.name)
		}
		for _, k := range set.keys {
			if len(k) != 32 {
				return nil, fmt.Errorf("write pins: a %s key has %d bytes, want 32", set.name, len(k))
			}
			*set.to = append(*set.to, base64.StdEncoding.EncodeToString(k))
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write pins: %w", err)
	}
	return append(out, '\n'), nil
}

// checkPins refuses a document the agent could not use.
func checkPins(pins []byte) error {
	dec := json.NewDecoder(bytes.NewReader(pins))
	dec.DisallowUnknownFields()
	var doc pinsDoc
	if err := dec.Decode(&doc); err != nil {
		return fmt.Errorf("read pins.json: %w", err)
	}
	for _, k := range append(append([]string{}, doc.ServerKeys...), doc.ImageKeys...) {
		if raw, err := base64.StdEncoding.DecodeString(k); err != nil || len(raw) != 32 {
			return fmt.Errorf("read pins.json: %.60q is no base64 of a 32-byte key", k)
		}
	}
	if len(doc.ServerKeys) == 0 || len(doc.ImageKeys) == 0 {
		return errors.New("read pins.json: want at least one server key and one image key")
	}
	return nil
}

// pinsArchive makes the uncompressed newc archive that stands in front of an
// initramfs. Equal pins give equal bytes: no times, no owners, fixed order.
func pinsArchive(pins []byte) ([]byte, error) {
	if err := checkPins(pins); err != nil {
		return nil, err
	}
	recs := []cpio.Record{
		cpio.Directory("etc", 0o755), // the kernel makes no parent folders by itself
		cpio.Directory("etc/labswarm", 0o755),
		cpio.StaticFile(PinsPath, string(pins), 0o644),
	}
	cpio.MakeAllReproducible(recs)
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, recs); err != nil {
		return nil, fmt.Errorf("write pins archive: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("write pins archive: %w", err)
	}
	if r := b.Len() % initrdAlign; r != 0 {
		b.Write(make([]byte, initrdAlign-r))
	}
	return b.Bytes(), nil
}
