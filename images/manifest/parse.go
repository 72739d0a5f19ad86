package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Parse reads manifest.json strictly: at most MaxJSON bytes, valid UTF-8, no unknown, repeated, null or
// differently spelled field, nothing after the object, every number in range. It does not need the side files;
// Load does, and checks the whole.
func Parse(data []byte) (*Manifest, error) {
	if len(data) > MaxJSON {
		return nil, fmt.Errorf("parse manifest: %d bytes exceed the limit of %d", len(data), MaxJSON)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("parse manifest: not valid UTF-8")
	}
	if err := checkKeys(data); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if err := m.checkRanges(); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	m.index()
	return &m, nil
}

// Load parses a manifest together with its side files (nil when it has none) and checks everything that can be
// checked without the disk and the torrent. The caller has verified the signature over manifestJSON before.
func Load(manifestJSON, usedBin, hashesBin []byte) (*Manifest, error) {
	m, err := Parse(manifestJSON)
	if err != nil {
		return nil, err
	}
	if err := m.attach(usedBin, hashesBin); err != nil {
		return nil, fmt.Errorf("load manifest %s/%s: %w", m.Name, m.Version, err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("load manifest %s/%s: %w", m.Name, m.Version, err)
	}
	return m, nil
}

func (m *Manifest) attach(usedBin, hashesBin []byte) error {
	if m.UsedBlob != nil {
		if err := m.UsedBlob.check(usedBin, "used.bin"); err != nil {
			return err
		}
		list, err := DecodeUsed(bytes.NewReader(usedBin), m.UsedBlob.Count, m.Disk.Size)
		if err != nil {
			return err
		}
		m.used = list
	}
	if m.HashesBlob != nil {
		if err := m.HashesBlob.check(hashesBin, "hashes.bin"); err != nil {
			return err
		}
		m.hashes = hashesBin
	}
	return nil
}

// index prepares the accessors from the inline fields.
func (m *Manifest) index() {
	m.starts = make([]int64, len(m.Cells))
	var n int64
	for i, r := range m.Cells {
		m.starts[i] = n
		n += r.Count
	}
	m.used, m.hashes = m.UsedList, m.HashList
}

// checkKeys walks the JSON beside the Go types, since encoding/json accepts repeated keys, null anywhere and
// field names in another case.
func checkKeys(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walk(dec, reflect.TypeFor[Manifest](), "manifest"); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	return nil
}

func walk(dec *json.Decoder, t reflect.Type, path string) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch tok {
	case nil:
		return fmt.Errorf("%s is null", path)
	case json.Delim('{'):
		return walkObject(dec, t, path)
	case json.Delim('['):
		elem := t
		if t.Kind() == reflect.Slice {
			elem = t.Elem()
		}
		for dec.More() {
			if err := walk(dec, elem, path); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	return err
}

func walkObject(dec *json.Decoder, t reflect.Type, path string) error {
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("%s is an object", path)
	}
	fields := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
			fields[name] = t.Field(i).Type
		}
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		ft, ok := fields[key]
		if !ok {
			return fmt.Errorf("%s has an unknown or repeated field %q", path, key)
		}
		delete(fields, key)
		if err := walk(dec, ft, path+"."+key); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}
