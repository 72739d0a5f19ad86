package httpapi

import (
	"encoding/json"
	"net/http"

	"labswarm/api"
)

// The functions here say which rooms a request acts in (Route.rooms). They read
// the body loosely: the handler refuses what is wrong with it.

func isDryRun(body []byte) bool {
	var req struct {
		DryRun bool `json:"dry_run"`
	}
	return json.Unmarshal(body, &req) == nil && req.DryRun
}

// roomsOfWish are the rooms of a job to be made.
func (a *Admin) roomsOfWish(r *http.Request, body []byte) ([]string, error) {
	req, err := loose[api.JobCreate](body)
	if err != nil {
		return nil, err
	}
	return a.roomsOfTargets(r, req.Room, req.Hosts)
}

// roomsOfJob are the rooms of the job in the path.
func (a *Admin) roomsOfJob(r *http.Request, _ []byte) ([]string, error) {
	id, err := jobID(r)
	if err != nil {
		return nil, err
	}
	j, err := a.svc.Job(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if j.Room != "" {
		return []string{j.Room}, nil
	}
	var hosts []string
	for _, s := range j.Slots {
		hosts = append(hosts, s.Host)
	}
	return a.roomsOfHosts(r, hosts)
}

func (a *Admin) roomsOfHosts(r *http.Request, names []string) ([]string, error) {
	var rooms []string
	for _, name := range names {
		h, err := a.svc.Host(r.Context(), name)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, h.Room)
	}
	return rooms, nil
}
