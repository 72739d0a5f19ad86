package tuitest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/tui/snapshot"
)

// Asked is one request that changes something: "POST /v1/wake" and its body.
type Asked struct{ What, Body string }

// Schedules are one that runs, one that skips its next night, a paused one, one
// that is over, and one that the clock stops.
func Schedules() []api.ScheduleInfo {
	sched := func(name, image, version, room string) api.ScheduleInfo {
		return api.ScheduleInfo{Schedule: api.Schedule{Name: name, Weekdays: []string{"mon", "tue", "wed", "thu", "fri"}, Start: "02:00", End: "06:00", TZ: "Europe/Rome",
			Job: api.JobCreate{Image: image, Version: version, Room: room}}}
	}
	// next is a run of a local date; ahead is local time less UTC, in hours.
	next := func(date string, ahead int, skip string) api.ScheduleNext {
		d, err := time.Parse(time.DateOnly, date)
		if err != nil {
			panic(err)
		}
		at := d.Add(time.Duration(2-ahead) * time.Hour)
		return api.ScheduleNext{Date: date, Start: at, End: at.Add(4 * time.Hour), Skip: skip}
	}
	night := sched("nightly-A101", "win11", "", "A101")
	night.Next = []api.ScheduleNext{next("2027-03-25", 1, ""), next("2027-03-26", 1, ""), next("2027-03-29", 2, ""), next("2027-03-30", 2, ""), next("2027-03-31", 2, "")}
	night.Last = &api.ScheduleRun{Date: "2026-11-19", Result: api.RunStarted, Job: 118}
	skips := sched("weekly-A102", "deb12-lab", "14", "A102")
	skips.Weekdays = []string{"sun", "wed"}
	skips.Next = []api.ScheduleNext{next("2026-12-27", 1, "calendar holidays: 2026-12-24..2027-01-06"), next("2027-01-10", 1, "")}
	skips.Last = &api.ScheduleRun{Date: "2026-11-15", Result: api.RunMissed, Reason: "the server was off"}
	paused := sched("paused", "exam", "3", "B001")
	paused.Paused, paused.PausedBy = Now().Add(-time.Hour), "adm1"
	paused.Next = []api.ScheduleNext{next("2026-11-23", 1, "paused")}
	once := sched("once", "exam", "3", "")
	once.Weekdays, once.Date, once.Job.Hosts = nil, "2026-11-01", []string{"b1", "b2"}
	once.Last = &api.ScheduleRun{Date: "2026-11-01", Result: api.RunSkipped, Reason: "another job"}
	stopped := sched("教室-夜", "win11", "2026-11", "A102")
	stopped.Clock = "the server's clock went back by 3h"
	return []api.ScheduleInfo{night, skips, paused, once, stopped}
}

// Runs are the past of the first schedule.
func Runs() []api.ScheduleRun {
	return []api.ScheduleRun{
		{Date: "2026-11-19", Result: api.RunStarted, Job: 118}, {Date: "2026-11-18", Result: api.RunSkipped, Reason: "calendar holidays"},
		{Date: "2026-11-17", Result: api.RunMissed, Reason: "the server was off until 07:10"},
	}
}

// Questions are one of each kind; the last one is answered.
func Questions() []api.Question {
	return []api.Question{
		{ID: 7, Kind: api.QuestionNewDisk, Host: "a05", Room: "A101", Asked: Now().Add(-time.Hour), Text: "a05 has another disk than before: WD10 1 TB, serial WD-WX1. May it be written?",
			Choices: []api.Choice{{Name: api.AnswerAccept, Text: "it is its disk now and may be written"}, {Name: api.AnswerExclude, Text: "leave the PC out of all jobs"}}},
		{ID: 8, Kind: api.QuestionAmbiguous, Room: "A101", MAC: "00:e0:4c:68:00:11", Asked: Now().Add(-26 * time.Hour), Text: "two PCs show the MAC 00:e0:4c:68:00:11",
			Choices: []api.Choice{{Name: api.AnswerSharedNIC, Text: "a dongle: go by the UUID"}, {Name: api.AnswerIgnore, Text: "leave it"}}},
		{ID: 6, Kind: api.QuestionQuarantine, Host: "a06", Answer: api.AnswerRelease},
	}
}

// Enrolments are a PC that waits, one whose code is locked, and one that has its
// seat.
func Enrolments() []api.Enrolment {
	pc := func(id, mac, host string) api.Enrolment {
		return api.Enrolment{ID: id, MAC: mac, IP: "10.8.1.77", Vendor: "Dell Inc.", Product: "OptiPlex 7010", Serial: "7XK2", Host: host, Appeared: Now().Add(-time.Minute),
			Disks: []api.Disk{{Model: "SAMSUNG 870", Bytes: 250059350016, Serial: "S5Y1NX0R"}}}
	}
	out := []api.Enrolment{pc("e1", "00:11:22:33:44:55", ""), pc("e2", "00:11:22:33:44:66", ""), pc("e3", "00:11:22:33:44:77", "a09")}
	out[1].Locked, out[1].Vendor = true, "機械"
	return out
}

// care answers for schedules, waking, questions and new PCs, and notes what is
// to be changed.
func (s *Server) care(w http.ResponseWriter, r *http.Request, f snapshot.Facts) bool {
	path := r.URL.Path
	mine := false
	for _, p := range []string{api.RouteSchedules, api.RouteWake, api.RouteLearn, api.RouteEnrolled, api.RouteQuestions} {
		mine = mine || path == p || strings.HasPrefix(path, p+"/")
	}
	if !mine {
		return false
	}
	var body map[string]any
	if r.Method != http.MethodGet {
		raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		_ = json.Unmarshal(raw, &body) // DELETE has none
		s.mu.Lock()
		s.Asked = append(s.Asked, Asked{r.Method + " " + path, string(raw)})
		s.mu.Unlock()
	}
	switch {
	case path == api.RouteSchedules:
		answer(w, Schedules())
	case strings.HasSuffix(path, "/runs"):
		answer(w, Runs())
	case strings.HasSuffix(path, "/run"):
		if body["confirm"] != "A101" {
			refuse(w, "not confirmed")
			return true
		}
		answer(w, f.Jobs[0])
	case path == api.RouteWake:
		answer(w, api.WakeReply{Hosts: len(body["hosts"].([]any)), TakesS: 15})
	case path == api.RouteLearn:
		s.learn(w, r)
	case path == api.RouteEnrolled && r.Method == http.MethodPost:
		if body["code"] != "123456" {
			refuse(w, "no PC shows the code "+body["code"].(string))
			return true
		}
		answer(w, api.Host{Name: "a41", Room: body["room"].(string), MAC: "00:11:22:33:44:55", HostPlace: api.HostPlace{Seat: body["seat"].(string)}})
	case path == api.RouteEnrolled:
		answer(w, Enrolments())
	case path == api.RouteQuestions:
		answer(w, Questions())
	default: // a schedule or question after its change
		answer(w, struct{}{})
	}
	return true
}

func refuse(w http.ResponseWriter, why string) {
	w.WriteHeader(http.StatusBadRequest)
	answer(w, api.Problem{Status: 400, Code: api.CodeConfirm, Detail: why})
}

func (s *Server) learn(w http.ResponseWriter, r *http.Request) {
	l := &api.Learn{Room: "A101", Until: time.Now().Add(30 * time.Minute)}
	if r.Method == http.MethodDelete {
		l = nil
	}
	s.Change(func(f *snapshot.Facts) { f.Server.Learn = l })
	answer(w, l)
}
