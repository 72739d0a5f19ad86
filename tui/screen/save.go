package screen

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Save writes a new file into the working folder, as a whole or not at all; one
// that is there stays.
func Save(name string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("save: %w", err), os.Remove(name))
	}
	return nil
}

// FileName makes a name fit for a part of a file's name.
func FileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, s)
}
