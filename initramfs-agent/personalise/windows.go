package personalise

import (
	"encoding/json"
	"fmt"

	"labswarm/initramfs-agent/volume"
)

// hostFile is where a start-up script of an image finds the PC's name.
const hostFolder, hostFile = "labswarm", "labswarm/host.json"

// HostFile says what is written to an EFI system partition: a small JSON file
// that any system can read.
func HostFile(h Host) (*Plan, error) {
	if err := CheckName(h.Name); err != nil {
		return nil, err
	}
	b, err := json.Marshal(struct {
		Format int `json:"format"`
		Host
	}{1, h})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", hostFile, err)
	}
	return &Plan{Changes: []Change{
		{Path: hostFolder, Folder: true, Meta: volume.Meta{Mode: 0o755}},
		{Path: hostFile, Content: append(b, '\n'), Meta: plainFile},
	}}, nil
}
