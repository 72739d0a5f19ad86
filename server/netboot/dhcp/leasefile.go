package dhcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"labswarm/server/inventory/ident"
)

// maxLeaseFile bounds the lease file: 4096 leases of about 100 bytes.
const maxLeaseFile = 4 << 20

// FileStore keeps leases in one JSON file. Each Save writes a new file, flushes
// it and renames it over the old one, so that a power cut leaves one of the two.
type FileStore struct{ Path string }

// Load returns the saved leases; a missing file is an empty store. Entries that
// do not read are dropped, a file that is no JSON at all is an error: it may be
// somebody else's.
func (s FileStore) Load() ([]Lease, error) {
	f, err := os.Open(s.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLeaseFile))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read leases %q: %w", s.Path, err)
	}
	leases, err := decodeLeases(data)
	if err != nil {
		return nil, fmt.Errorf("read leases %q: %w: move the file away to start with none", s.Path, err)
	}
	return leases, nil
}

func decodeLeases(data []byte) ([]Lease, error) {
	var all []Lease
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	var out []Lease
	for _, l := range all {
		mac, err := ident.ParseMAC(l.MAC)
		if err == nil && l.IP.Is4() && len(out) < maxPool {
			l.MAC = mac
			out = append(out, l)
		}
	}
	return out, nil
}

// Save replaces the file.
func (s FileStore) Save(leases []Lease) error {
	data, err := json.MarshalIndent(leases, "", " ")
	if err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	dir := filepath.Dir(s.Path)
	tmp, err := os.CreateTemp(dir, ".leases-*")
	if err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	_, err = tmp.Write(append(data, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), s.Path)
	}
	if err != nil {
		return fmt.Errorf("write leases %q: %w", s.Path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncDir(dir)
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flush folder %q: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flush folder %q: %w", dir, err)
	}
	return nil
}
