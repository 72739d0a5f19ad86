// Package capture reads the disk of a terminal that becomes an image: what it holds, what speaks against it, and its
// cells, masked, hashed and compressed, as a stream. It only reads, and it can do nothing else: the disk it is given
// was opened for reading (disk.Set.OpenReading), nothing is mounted, no journal is replayed.
//
// Called by package deploy when the order is to capture.
package capture

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/images/manifest"
	"labswarm/images/survey"
)

// Look reads the partition table and the used maps of a disk of size bytes and applies the guards. Everything that
// speaks against an image is in one *api.Fault, with the name under which each can be overridden.
//
// failing is what the disk says of its own health when it fails, else "".
func Look(r io.ReaderAt, size int64, sector int, failing string, force []string) (*survey.Disk, error) {
	d, findings, err := survey.Read(r, size, sector, survey.Options{Force: force, NeedLoader: true})
	if err != nil {
		return nil, &api.Fault{Code: api.CodeGuard, Text: "this disk cannot become an image", Err: err}
	}
	smart := survey.Finding{Guard: survey.Smart, Text: failing + ": what is read from it may be wrong; take another PC as reference"}
	switch {
	case failing == "":
	case !slices.Contains(force, survey.Smart):
		findings = append(findings, smart)
	case d != nil:
		d.Force(smart)
	}
	if len(findings) > 0 {
		return nil, &api.Fault{Code: api.CodeGuard, Text: refusal(findings)}
	}
	if len(d.Used) == 0 {
		return nil, &api.Fault{Code: api.CodeGuard, Text: "this disk cannot become an image: nothing on it is in use"}
	}
	return d, nil
}

// refusal lists the findings for people, and what overrides them.
func refusal(findings []survey.Finding) string {
	var b strings.Builder
	b.WriteString("this disk cannot become an image as it is: ")
	for i, f := range findings {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.String())
		switch f.Guard {
		case "":
			b.WriteString(" (cannot be forced)")
		default:
			b.WriteString(" (--force=" + f.Guard + " takes it all the same)")
		}
	}
	return b.String()
}

// Same tells whether two looks at a disk saw the same. A disk that is in use between them is no image.
func Same(a, b *survey.Disk) error {
	if slices.Equal(a.Used, b.Used) && slices.Equal(a.Parts, b.Parts) {
		return nil
	}
	return &api.Fault{Code: api.CodeCapture, Text: fmt.Sprintf(
		"the disk changed while it was read: its filesystems used %d bytes at first and %d bytes in the end; nothing was published", manifest.Sum(a.Used), manifest.Sum(b.Used))}
}

// Draft is what the server is told before the first cell. size and sector are bytes.
func Draft(d *survey.Disk, size int64, sector int, failing string) (api.CaptureDraft, error) {
	used, err := manifest.EncodeUsed(d.Used)
	return api.CaptureDraft{Size: size, Sector: sector, Extents: int64(len(d.Used)), Used: used, Smart: failing}, err
}
