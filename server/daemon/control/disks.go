package control

import (
	"fmt"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/images/fsmap/sig"
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
