package control

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
	"labswarm/server/versions"
)

// Ref says that somebody needs an image version.
type Ref struct {
	Image, Version string
	By             string // a sentence for people
	Live           bool   // a job that has not ended: nothing overrides it
}

// givenKept is how many versions each room keeps: the one it was given last, and the one before for the way back.
const givenKept = 2

// References lists who needs which version: jobs that have not ended, and every room that still has hosts.
func References(tx store.Tx) ([]Ref, error) {
	rooms, err := inventory.Rooms(tx)
	if err != nil {
		return nil, err
	}
	given := map[string][]string{} // by room in lower case, newest first
	for _, r := range rooms {
		given[strings.ToLower(r.Name)] = []string{}
	}
	var jobs []job.Job
	for key, raw := range tx.Scan("jobs/", "", 0) {
		var j job.Job
		if err := json.Unmarshal(raw, &j); err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		jobs = append(jobs, j)
	}
	var out []Ref
	for _, j := range slices.Backward(jobs) { // numbers only grow
		if j.Ended.IsZero() {
			out = append(out, Ref{Image: j.Image, Version: j.Version, By: fmt.Sprintf("job %d has not ended", j.ID), Live: true})
		}
		if have := given[strings.ToLower(j.Room)]; j.Room != "" && (have == nil || len(have) >= givenKept) {
			continue // nothing to learn from its slots
		}
		slots, err := getSlots(tx, j.ID)
		if err != nil {
			return nil, err
		}
		for _, s := range slots {
			have, ok := given[strings.ToLower(s.Room)]
			v := j.Image + "/" + j.Version
			if !ok || !s.Verified || len(have) >= givenKept || slices.Contains(have, v) {
				continue
			}
			given[strings.ToLower(s.Room)] = append(have, v)
			what := "was given it last"
			if len(have) > 0 {
				what = "was given it before its present one"
			}
			out = append(out, Ref{Image: j.Image, Version: j.Version, By: fmt.Sprintf("room %s %s (job %d)", s.Room, what, j.ID)})
		}
	}
	return out, nil
}

// usable refuses a version that no new job may use.
func usable(tx store.Tx, img api.Image) error {
	r, err := versions.Of(tx, img.Name, img.Version, img.Digest)
	if err != nil {
		return err
	}
	if why := r.Refusal(); why != "" {
		return conflict(api.CodeConflict, "image %s/%s cannot be deployed: %s; `labswarm image ls` shows the other versions", img.Name, img.Version, why)
	}
	return nil
}
