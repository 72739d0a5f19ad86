package control

import (
	"fmt"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/images/fsmap/sig"
	"labswarm/server/inventory"
	"labswarm/server/job"
)

// wanted is what host and job say of the disk together.
func wanted(h api.Host, rule string) (diskrule.Want, error) {
	var w diskrule.Want
	for _, text := range []string{h.Disk, rule} {
		r, err := diskrule.Parse(text)
		if err != nil {
			return w, badRequest(api.CodeUsage, "host %s: %v", h.Name, err)
		}
		if !r.Zero() {
			w.Rules = append(w.Rules, r)
		}
	}
	return w, nil
}

// swapped refuses to write a disk that the host did not have before, unless a
// rule names it by serial number or WWN.
func swapped(h api.Host, d api.Disk, want diskrule.Want) (code, text string) {
	if want.Read || inventory.DiskKnown(h, d) || slices.ContainsFunc(want.Rules, diskrule.Rule.Exact) {
		return "", ""
	}
	return api.CodeDiskNew, fmt.Sprintf("disk %s %s of %d bytes was never seen in this PC before: if it may be written, `labswarm host accept-disk %s`, then a new job",
		d.Model, d.Serial, d.Bytes, h.Name)
}

// checkDisk checks what a job says of the hosts' disks.
func checkDisk(req *api.JobCreate) error {
	if _, err := diskrule.Parse(req.Disk); err != nil {
		return badRequest(api.CodeUsage, "%v", err)
	}
	for _, k := range req.ReplaceForeign {
		if !slices.Contains(sig.Kinds(), k) {
			return badRequest(api.CodeUsage, "replace-foreign %q is unknown; name what may be overwritten, of %s", k, strings.Join(sig.Kinds(), ", "))
		}
	}
	return nil
}

// diskText says what a job was told about the disks, for the log.
func diskText(j *job.Job) string {
	text := ""
	if j.Disk != "" {
		text = fmt.Sprintf(", disk rule %q", j.Disk)
	}
	if len(j.Replace) > 0 {
		text += ", REPLACES foreign data of kind " + strings.Join(j.Replace, ", ")
	}
	return text
}
