package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/access"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// wholeServer are the operators' rows that no room's operator may use, and why.
var wholeServer = map[string]string{
	"GET " + api.RouteDoctor:                   "it probes the whole network",
	"PUT " + api.RouteCalendars + "/{name}":    "schedules of all rooms obey a calendar",
	"DELETE " + api.RouteCalendars + "/{name}": "schedules of all rooms obey a calendar",
}

var musts atomic.Int64

// must sends a request that has to succeed and reads its answer.
func (d *desk) must(method, path, body string, into any) {
	d.t.Helper()
	rec := d.ask(root, method, path, body, "Idempotency-Key", fmt.Sprint("must", musts.Add(1)))
	if rec.Code >= 300 {
		d.t.Fatalf("%s %s = %d %s", method, path, rec.Code, rec.Body)
	}
	if into != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			d.t.Fatal(err)
		}
	}
}

// wish is the body of a job for all of a room, or for hosts, agreed to.
func (d *desk) wish(target string) string {
	d.t.Helper()
	body := `{"image":"deb",` + target
	var p api.JobPlan
	d.must("POST", api.RoutePlans, body+"}", &p)
	return fmt.Sprintf(`%s,"confirm":%q,"plan_digest":%q,"confirm_hosts":%d}`, body, p.ConfirmText, p.PlanDigest, p.Erase)
}

func nightly(room, name string) string {
	return fmt.Sprintf(`{"name":%q,"confirm":%q,"weekdays":["mon"],"start":"22:00","end":"23:00","tz":"UTC","job":{"image":"deb","room":%q}}`, name, room, room)
}

// twoRooms has in each of r1 and r2 two PCs, a job of one of them, a schedule
// and a question; learn mode is open for r2.
func twoRooms(t *testing.T) (*desk, map[string]string) {
	d := newDesk(t)
	at := map[string]string{}
	for i, room := range []string{"r1", "r2"} {
		for n := range 2 {
			d.must("POST", api.RouteHosts, fmt.Sprintf(`{"name":"%c%d","room":%q,"mac":"52:54:00:00:%02x:%02x"}`, 'a'+i, n+1, room, i, n+1), nil)
		}
		d.must("PUT", api.RouteSchedules+"/s"+room, nightly(room, "s"+room), nil)
		var j api.Job
		d.must("POST", api.RouteJobs, d.wish(fmt.Sprintf(`"hosts":["%c1"]`, 'a'+i)), &j)
		at["job "+room] = fmt.Sprint(j.ID)
		q, err := d.quarantine(fmt.Sprintf("%c2", 'a'+i), room)
		if err != nil {
			t.Fatal(err)
		}
		at["question "+room] = q
	}
	d.must("POST", api.RouteLearn, `{"room":"r2","minutes":10}`, nil)
	return d, at
}

// TestEveryOperatorRowKnowsItsRooms: the operator of a room does everything
// there that an operator does, and nothing of it elsewhere.
func TestEveryOperatorRowKnowsItsRooms(t *testing.T) {
	d, at := twoRooms(t)
	bodies := func(path, room string) string {
		host := map[string]string{"r1": "a1", "r2": "b1"}[room]
		switch {
		case path == api.RouteJobs:
			return fmt.Sprintf(`{"image":"deb","hosts":[%q]}`, host)
		case path == api.RouteWake:
			return fmt.Sprintf(`{"hosts":[%q]}`, host)
		case strings.HasPrefix(path, api.RouteQuestions):
			return `{"answer":"none of them"}`
		}
		return "{}"
	}
	for _, rt := range d.admin.Table() {
		row := rt.Method + " " + rt.Path
		if rt.Role != api.RoleOperator {
			continue
		}
		for _, mine := range []string{"r1", "r2"} {
			op := access.Caller{Who: "operator of " + mine, Role: api.RoleOperator, Rooms: []string{mine}}
			for _, room := range []string{"r1", "r2"} {
				id := at["job "+room]
				if strings.HasPrefix(rt.Path, api.RouteQuestions) {
					id = at["question "+room]
				}
				path := strings.NewReplacer("{id}", id, "{name}", "s"+room, "{host}", "nobody").Replace(rt.Path)
				body := bodies(rt.Path, room)
				if rt.Method == "PUT" && strings.HasPrefix(rt.Path, api.RouteSchedules) {
					body = strings.Replace(nightly(room, "s"+room), room, "wrong", 1) // and then: its name is not the path's
				}
				if rt.Method == "DELETE" || strings.HasSuffix(path, "/cancel") {
					continue // below: they change what the others need
				}
				rec := d.ask(op, rt.Method, path, body, "Idempotency-Key", op.Who+row+room)
				may := mine == room && wholeServer[row] == ""
				if got := codeOf(rec) != api.CodeNotAllowed; got != may {
					t.Errorf("%s: %s on %s = %d %s; want let in %v", op.Who, row, room, rec.Code, rec.Body, may)
				}
			}
		}
	}
	op := access.Caller{Who: "op", Role: api.RoleOperator, Rooms: []string{"r1"}}
	for i, c := range []struct {
		method, path, body string
		code               int
	}{
		{"POST", api.RouteLearn, `{"room":"r1"}`, 403}, // who gives a PC its name decides what may erase it: admins only
		{"DELETE", api.RouteLearn, "", 403},
		{"POST", api.RouteEnrolled, `{"code":"000000","room":"r1","seat":"1"}`, 403},
		{"POST", api.RouteJobs + "/" + at["job r2"] + "/cancel", "", 403},
		{"POST", api.RouteJobs + "/" + at["job r1"] + "/cancel", "", 200},
		{"DELETE", api.RouteSchedules + "/sr2", "", 403},
		{"PUT", api.RouteSchedules + "/sr2", nightly("r1", "sr2"), 403}, // r2's nights are not r1's to give away
		{"PUT", api.RouteSchedules + "/sr1", nightly("r2", "sr1"), 403},
		{"PUT", api.RouteSchedules + "/SR1", nightly("r1", "sr1"), 200},
		{"DELETE", api.RouteSchedules + "/sr1", "", 204},
		{"POST", api.RouteWake, `{"hosts":["a1","b1"]}`, 403},
		{"POST", api.RouteWake, `{"room":"r1"}`, 200},
		{"POST", api.RouteWake, `{}`, 403},
		{"POST", api.RouteQuestions + "/" + at["question r2"], `{"answer":"release"}`, 403},
		{"POST", api.RouteQuestions + "/" + at["question r1"], `{"answer":"release"}`, 200},
		{"POST", api.RouteQuestions + "/" + at["question r1"], `{"answer":"release"}`, 404}, // is not open any more
		{"POST", api.RoutePlans, `{"image":"deb","room":"r2"}`, 200},                        // a viewer may look
	} {
		if rec := d.ask(op, c.method, c.path, c.body, "Idempotency-Key", fmt.Sprint(i)); rec.Code != c.code {
			t.Errorf("%s %s %s = %d %s; want %d", c.method, c.path, c.body, rec.Code, rec.Body, c.code)
		}
	}
}

// TestEventsNameTheCaller: what people did says who it was.
func TestEventsNameTheCaller(t *testing.T) {
	d, at := twoRooms(t)
	eva := access.Caller{Who: "token t3 (eva)", Role: api.RoleAdmin}
	seen, err := d.e.LastEvent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	job := api.RouteJobs + "/" + at["job r1"]
	for i, c := range [][3]string{
		{"POST", job + "/pause"}, {"POST", job + "/resume"}, {"POST", job + "/hosts/a1/hold"}, {"POST", job + "/hosts/a1/release"},
		{"POST", job + "/extend", `{"not_after":"` + time.Now().Add(6*24*time.Hour).Format(time.RFC3339) + `"}`}, {"POST", job + "/hosts/a1/skip"}, {"POST", api.RouteJobs + "/" + at["job r2"] + "/cancel"},
		{"POST", api.RouteSchedules + "/sr1/pause"}, {"POST", api.RouteSchedules + "/sr1/resume"}, {"DELETE", api.RouteSchedules + "/sr1"}, {"POST", api.RouteWake, `{"room":"r1"}`},
		{"DELETE", api.RouteLearn}, {"POST", api.RouteLearn, `{"room":"r1","minutes":5}`}, {"POST", api.RouteQuestions + "/" + at["question r1"], `{"answer":"release"}`},
		{"POST", api.RouteHosts, `{"name":"n1","room":"r3","mac":"52:54:00:00:09:01"}`}, {"POST", api.RouteImport, `{"what":"hosts","format":"csv","text":"room,seat,name,mac\nr4,1,i1,52:54:00:00:09:02\n","save":true}`},
		{"POST", api.RouteImages + "/win/capture", `{"host":"n1"}`}, {"POST", api.RouteRooms, `{"name":"r5"}`}, {"DELETE", api.RouteHosts + "/i1"},
	} {
		if rec := d.ask(eva, c[0], c[1], c[2], "Idempotency-Key", fmt.Sprint(i)); rec.Code >= 300 {
			t.Errorf("%v = %d %s", c, rec.Code, rec.Body)
		}
	}
	events, err := d.e.EventsSince(t.Context(), seen, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if !strings.Contains(e.Text, eva.Who) && e.Code != "job_ended" && e.Code != "slot_armed" {
			t.Errorf("nobody did this: %+v", e)
		}
	}
	if len(events) < 19 {
		t.Errorf("%d events of 19 deeds", len(events))
	}
}

// quarantine asks about a host, as the engine does when two PCs claim to be it.
func (d *desk) quarantine(host, room string) (id string, err error) {
	return id, d.book.Store().Update(d.t.Context(), func(tx store.Tx) error {
		if _, err := inventory.Quarantine(tx, host, "two PCs claim to be it"); err != nil {
			return err
		}
		if _, err := inventory.Ask(tx, "quarantined/"+host, api.Question{Kind: api.QuestionQuarantine, Host: host, Room: room, Text: "who is it?",
			Choices: []api.Choice{{Name: api.AnswerRelease, Text: "found"}}}, time.Now()); err != nil {
			return err
		}
		n, err := inventory.Asked(tx, "quarantined/"+host)
		id = fmt.Sprint(n)
		return err
	})
}

// TestEachKindOfPostTwiceAtOnce: two equal requests at the same moment have one
// effect and one answer.
func TestEachKindOfPostTwiceAtOnce(t *testing.T) {
	d, at := twoRooms(t)
	for i, room := range []string{"r3", "r4", "r7"} {
		d.must("POST", api.RouteHosts, fmt.Sprintf(`{"name":"h%s","room":%q,"mac":"52:54:00:00:07:%02x"}`, room, room, i), nil)
	}
	d.must("PUT", api.RouteSchedules+"/sr4", nightly("r4", "sr4"), nil)
	w := d.wish(`"room":"r3"`)
	job := api.RouteJobs + "/" + at["job r1"]
	for i, c := range []struct {
		method, path, body, code string // of the event there must be one of; "" = none
	}{
		{"POST", api.RouteJobs, w, "job_created"},
		{"POST", api.RouteSchedules + "/sr4/run", `{"confirm":"r4"}`, "job_created"},
		{"POST", api.RouteWake, `{"room":"r1"}`, "hosts_woken"},
		{"POST", job + "/pause", "", "job_paused"},
		{"POST", job + "/resume", "", "job_resumed"},
		{"POST", job + "/hosts/a1/skip", "", "slot_skipped"},
		{"POST", job + "/cancel", "", ""},
		{"PUT", api.RouteSchedules + "/sr1", nightly("r1", "sr1"), "schedule_saved"},
		{"POST", api.RouteSchedules + "/sr1/pause", "", "schedule_paused"},
		{"POST", api.RouteImport, `{"what":"hosts","format":"csv","text":"room,seat,name,mac\nr6,1,i1,52:54:00:00:09:02\n","save":true}`, "inventory_imported"},
		{"POST", api.RouteQuestions + "/" + at["question r1"], `{"answer":"release"}`, "question_answered"},
		{"POST", api.RouteImages + "/win/capture", `{"host":"hr7"}`, "job_created"},
		{"DELETE", api.RouteLearn, "", "learn_closed"},
	} {
		before, err := d.e.LastEvent(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		answers := make([]string, 2)
		var wg sync.WaitGroup
		for n := range answers {
			wg.Go(func() {
				rec := d.ask(root, c.method, c.path, c.body, "Idempotency-Key", fmt.Sprint("twice", i))
				answers[n] = fmt.Sprint(rec.Code, rec.Body)
			})
		}
		wg.Wait()
		if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "20") {
			t.Errorf("%s %s answered\n%s\n%s", c.method, c.path, answers[0], answers[1])
		}
		events, err := d.e.EventsSince(t.Context(), before, 0)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range events {
			if e.Code == c.code {
				n++
			}
		}
		if c.code != "" && n != 1 {
			t.Errorf("%s %s: %d events %s of two equal requests; want 1: %+v", c.method, c.path, n, c.code, events)
		}
	}
	if rec := d.ask(root, "POST", api.RouteSchedules+"/sr4/run", `{"confirm":"R4"}`, "Idempotency-Key", "twice1"); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("the same key for another run = %d %s", rec.Code, rec.Body)
	}
}
