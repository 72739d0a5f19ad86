package tuitest

import (
	"encoding/json"
	"net/http"
	"time"

	"labswarm/api"
	"labswarm/tui/snapshot"
)

// Images are the versions that the server has.
func Images() []api.Image {
	img := func(name, version string, gib int64) api.Image {
		return api.Image{Name: name, Version: version, Created: Now().Add(-72 * time.Hour), UsedBytes: gib << 30, BytesShipped: gib << 30, Boot: "uefi"}
	}
	return []api.Image{img("win11", "2026-11", 31), img("deb12-lab", "14", 9)}
}

// Plan is the dry run of a request: every idle host goes, the others are busy.
func Plan(req api.JobCreate, f snapshot.Facts) api.JobPlan {
	p := api.JobPlan{
		Image: req.Image, Version: req.Version, Bytes: 9 << 30, PlanDigest: "d1", ConfirmText: req.Room, Request: req,
		NotBefore: Now(), NotAfter: Now().Add(4 * time.Hour), EtaMinS: 600, EtaMaxS: 760, SeedBytes: 9 << 30, FreeBytes: 400 << 30,
	}
	if req.Room == "" {
		p.ConfirmText = req.Image
	}
	for _, h := range f.Hosts {
		named := false
		for _, n := range req.Hosts {
			named = named || n == h.Name
		}
		if h.Room != req.Room && !named {
			continue
		}
		line := api.JobPlanHost{Host: h.Name, Verdict: api.VerdictGo, Reason: "when it boots from the network", Disk: "SAMSUNG 870 S5Y1NX04 233 GiB",
			DiskModel: "SAMSUNG 870", DiskBytes: 233 << 30, Fits: "yes", FetchBytes: 9 << 30, InWindow: true}
		if h.Name == "b2" {
			line.Risk = []string{"a user is logged in"}
		}
		p.Erase++
		p.InWindow++
		p.Hosts = append(p.Hosts, line)
	}
	return p
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request, f snapshot.Facts) {
	var req api.JobCreate
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	answer(w, Plan(req, f))
}

// create makes the job, if it was confirmed as the plan asked for.
func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var req api.JobCreate
	err := json.NewDecoder(r.Body).Decode(&req)
	s.mu.Lock()
	s.Created = append(s.Created, req)
	f := s.facts
	s.mu.Unlock()
	p := Plan(req, f)
	switch {
	case err != nil || req.Confirm != p.ConfirmText || req.ConfirmHosts != p.Erase:
		w.WriteHeader(http.StatusBadRequest)
		answer(w, api.Problem{Status: 400, Code: api.CodeConfirm, Detail: "not confirmed"})
		return
	case req.PlanDigest != p.PlanDigest || s.Stale:
		w.WriteHeader(http.StatusConflict)
		answer(w, api.Problem{Status: 409, Code: api.CodePlanStale, Detail: "the plan is not true any more: b3 has gone; make a new plan"})
		return
	}
	j := api.Job{ID: 119, Image: req.Image, Version: req.Version, Room: req.Room, Created: time.Now()}
	for _, h := range p.Hosts {
		j.Slots = append(j.Slots, api.Slot{Host: h.Host, State: api.StateArmed})
	}
	s.Change(func(f *snapshot.Facts) { f.Jobs = append([]api.Job{j}, f.Jobs...) })
	answer(w, j)
}
