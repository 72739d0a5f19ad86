package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"labswarm/api"
)

func onlyAsks([]byte) bool { return true }

// isCheck says that an import is not to be saved.
func isCheck(body []byte) bool {
	var req api.ImportRequest
	return json.Unmarshal(body, &req) == nil && !req.Save
}

// loose reads a body for a rooms function.
func loose[T any](body []byte) (v T, err error) {
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fail(http.StatusBadRequest, api.CodeUsage, "read request: %v", err)
	}
	return v, nil
}

// roomsOfTargets are the rooms of a room, of hosts, or of both.
func (a *Admin) roomsOfTargets(r *http.Request, room string, hosts []string) ([]string, error) {
	rooms, err := a.roomsOfHosts(r, hosts)
	if room != "" {
		rooms = append(rooms, room)
	}
	return rooms, err
}

func (a *Admin) roomsOfWake(r *http.Request, body []byte) ([]string, error) {
	req, err := loose[api.WakeRequest](body)
	if err != nil {
		return nil, err
	}
	return a.roomsOfTargets(r, req.Room, req.Hosts)
}

// roomsOfSchedule are the rooms of the schedule in the path.
func (a *Admin) roomsOfSchedule(r *http.Request, _ []byte) ([]string, error) {
	s, err := a.svc.Schedule(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return a.roomsOfTargets(r, s.Job.Room, s.Job.Hosts)
}

// roomsOfResumed is roomsOfSchedule. While the clock is in doubt, to resume a
// schedule says that it is right, and that concerns every room.
func (a *Admin) roomsOfResumed(r *http.Request, body []byte) ([]string, error) {
	s, err := a.svc.Schedule(r.Context(), r.PathValue("name"))
	if err != nil || s.Clock != "" {
		return nil, err
	}
	return a.roomsOfSchedule(r, body)
}

// roomsOfSaved are the rooms of a schedule to be saved, and of the one that it
// takes the place of.
func (a *Admin) roomsOfSaved(r *http.Request, body []byte) ([]string, error) {
	req, err := loose[api.SchedulePut](body)
	if err != nil {
		return nil, err
	}
	rooms, err := a.roomsOfTargets(r, req.Job.Room, req.Job.Hosts)
	if err != nil {
		return nil, err
	}
	all, err := a.svc.Schedules(r.Context())
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if strings.EqualFold(s.Name, r.PathValue("name")) {
			old, err := a.roomsOfTargets(r, s.Job.Room, s.Job.Hosts)
			if err != nil {
				return nil, err
			}
			rooms = append(rooms, old...)
		}
	}
	return rooms, nil
}

// roomsOfQuestion are the rooms of the question in the path, and of the hosts
// that its answer may change.
func (a *Admin) roomsOfQuestion(r *http.Request, _ []byte) ([]string, error) {
	open, err := a.svc.Questions(r.Context())
	if err != nil {
		return nil, err
	}
	for _, q := range open {
		if strconv.FormatUint(q.ID, 10) != r.PathValue("id") {
			continue
		}
		hosts, err := a.svc.Hosts(r.Context())
		if err != nil {
			return nil, err
		}
		var rooms []string
		if q.Room != "" {
			rooms = append(rooms, q.Room)
		}
		for _, h := range hosts {
			if strings.EqualFold(h.Name, q.Host) || (q.UUID != "" && strings.EqualFold(h.UUID, q.UUID)) {
				rooms = append(rooms, h.Room)
			}
		}
		return rooms, nil
	}
	return nil, fail(http.StatusNotFound, api.CodeNotFound, "no open question %s", r.PathValue("id"))
}
