package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/decide"
	"labswarm/server/netboot"
)

// newPC is a PC that nobody knows, as its enrol profile speaks.
func (s *site) newPC(n int) *agent {
	s.t.Helper()
	return newAgent(s, api.Host{Name: fmt.Sprintf("new%d", n), MAC: fmt.Sprintf("52:54:00:00:0e:%02x", n), UUID: fmt.Sprintf("%02xeeddcc-4455-6677-8899-aabbccddeeff", n)})
}

func (a *agent) askCode() api.EnrolReply {
	a.s.t.Helper()
	var rep api.EnrolReply
	a.ok("POST", api.RouteEnrol, api.EnrolRequest{BootID: a.boot, Nonce: a.nonce, Version: "test", Profile: api.ProfileEnrol, Evidence: a.ev}, &rep)
	return rep
}

// code is the code that the PC shows.
func (a *agent) code() string {
	a.s.t.Helper()
	rep := a.askCode()
	if rep.Status != api.EnrolPending || len(rep.EnrolCode) != 6 {
		a.s.t.Fatalf("a new PC in learn mode: %+v; want pending and six digits", rep)
	}
	return rep.EnrolCode
}

func (s *site) learn(room string) api.Learn {
	s.t.Helper()
	s.srv.enrol = true // as if the boot folder held the enrol initramfs
	l, err := s.cli.OpenLearn(s.t.Context(), api.Learn{Room: room})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) wantProblem(err error, code string) {
	s.t.Helper()
	if p, ok := err.(*api.Problem); !ok || p.Code != code { //nolint:errorlint // the client's own answer
		s.t.Errorf("%v; want a problem with code %s", err, code)
	}
}

func (s *site) askAt(p netboot.Proto, mac, uuid, ip string) decide.Decision {
	s.t.Helper()
	r := netboot.Request{Proto: p, MAC: mac, UUID: uuid}
	if ip != "" {
		r.IP = netip.MustParseAddr(ip)
	}
	return s.srv.engine.DecideBoot(s.t.Context(), r).Decision
}

// TestLearnModeAndNothingElseBootsTheEnrolProfile: over all protocols, an
// unknown PC gets the profile that cannot write while learn mode is open for
// its place; a known one never does, and no unknown or unarmed one gets the
// agent.
func TestLearnModeAndNothingElseBootsTheEnrolProfile(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	_, err := s.cli.OpenLearn(t.Context(), api.Learn{Room: "r1"})
	s.wantProblem(err, api.CodeConflict) // no enrol initramfs in the boot folder
	const mac, uuid = "52:54:00:00:77:77", "77777777-4455-6677-8899-aabbccddeeff"
	for _, p := range decide.Protos() {
		if d := s.askAt(p, mac, uuid, ""); d.Action == decide.Enrol || d.Action == decide.Agent {
			t.Errorf("%s before learn mode: %+v", p, d)
		}
	}
	s.learn("r1")
	rng := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		p := decide.Protos()[rng.IntN(len(decide.Protos()))]
		m := fmt.Sprintf("52:54:00:%02x:%02x:%02x", 1+rng.IntN(255), rng.IntN(256), rng.IntN(256))
		if d := s.askAt(p, m, "", []string{"", "127.0.0.9"}[rng.IntN(2)]); d.Action != decide.Enrol || d.Profile != decide.ProfileEnrol {
			t.Fatalf("%s %s: %+v; want enrol", p, m, d)
		}
	}
	if d := s.askAt(decide.ProtoHTTPIPXE, mac, uuid, "10.9.9.9"); d.Action != decide.Local {
		t.Errorf("another segment: %+v", d)
	}
	if d := s.askAt(decide.ProtoProxy, h.MAC, h.UUID, ""); d.Action != decide.Local {
		t.Errorf("a known host without a job: %+v", d)
	}
	if d := s.askAt(decide.ProtoProxy, h.MAC, uuid, ""); d.Action != decide.Local {
		t.Errorf("an ambiguous host: %+v", d)
	}
	info, err := s.cli.Server(t.Context())
	if err != nil || info.Learn == nil || info.Learn.Room != "r1" || info.Learn.Minutes != 30 {
		t.Errorf("status: %+v, %v", info.Learn, err)
	}
	if err := s.cli.CloseLearn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := s.askAt(decide.ProtoProxy, mac, uuid, ""); d.Action != decide.Ignore {
		t.Errorf("after learn mode: %+v", d)
	}
	s.wantEvents("learn_opened", "learn_closed")
}

func (s *site) wantEvents(codes ...string) {
	s.t.Helper()
	events, err := s.srv.engine.EventsSince(s.t.Context(), 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range codes {
		found := false
		for _, e := range events {
			found = found || e.Code == c
		}
		if !found {
			s.t.Errorf("no event %s among %d", c, len(events))
		}
	}
}

func TestACodeGivesAPCItsSeat(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	if _, err := s.cli.PutRoom(ctx, api.Room{Name: "A101", Rows: 1, Cols: 2}); err != nil {
		t.Fatal(err)
	}
	pc := s.newPC(1)
	if rep := pc.askCode(); rep.Status != api.EnrolGoLocal {
		t.Fatalf("without learn mode: %+v", rep)
	}
	s.learn("A101")
	code := pc.code()
	if again := pc.code(); again != code {
		t.Errorf("the code changed from %s to %s", code, again)
	}
	// No order can exist for an unbound host, whatever it asks.
	pc.refused("GET", api.RouteOrder, nil, api.CodeNoSession)
	if rep := pc.enrol(); rep.Status != api.EnrolGoLocal {
		t.Errorf("an unbound PC that asks as the agent: %+v", rep)
	}
	list, err := s.cli.Enrolments(ctx)
	if err != nil || len(list) != 1 || list[0].MAC != pc.host.MAC || list[0].Serial != "SYS-new1" {
		t.Fatalf("waiting: %+v, %v", list, err)
	}
	_, err = s.cli.Bind(ctx, api.EnrolBind{Code: code, Room: "A101", Seat: "09"})
	s.wantProblem(err, api.CodeUsage) // no such seat: the code is still good
	h, err := s.cli.Bind(ctx, api.EnrolBind{Code: code, Room: "A101", Seat: "01"})
	if err != nil || h.Name != "A101-01" || h.MAC != pc.host.MAC || h.UUID != pc.host.UUID || h.Claimed || h.Serial != "SYS-new1" || len(h.KnownDisks) != 1 {
		t.Fatalf("bound: %+v, %v", h, err)
	}
	if rep := pc.askCode(); rep.Status != api.EnrolBound || rep.Host != "A101-01" || rep.Seat != "01" || rep.Room != "A101" || rep.After != "reboot" {
		t.Errorf("after the bind: %+v", rep)
	}
	if d := s.askAt(decide.ProtoProxy, pc.host.MAC, pc.host.UUID, ""); d.Action != decide.Local {
		t.Errorf("the bound PC boots %+v; want its own disk", d)
	}
	_, err = s.cli.Bind(ctx, api.EnrolBind{Code: code, Room: "A101", Seat: "02"})
	s.wantProblem(err, api.CodeNotFound) // used
}

func TestAPCTakesThePlaceOfAnother(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.learn("A101")
	pc, other := s.newPC(1), s.newPC(2)
	if _, err := s.cli.Bind(ctx, api.EnrolBind{Code: pc.code(), Room: "A101", Seat: "01"}); err != nil {
		t.Fatal(err)
	}
	code := other.code()
	_, err := s.cli.Bind(ctx, api.EnrolBind{Code: code, Room: "A101", Seat: "01"})
	s.wantProblem(err, api.CodeConflict) // taken
	h, err := s.cli.Bind(ctx, api.EnrolBind{Code: code, Room: "A101", Seat: "01", Replace: true})
	if err != nil || h.Name != "A101-01" || h.MAC != other.host.MAC || h.UUID != other.host.UUID {
		t.Fatalf("a new PC in the place of the old one: %+v, %v", h, err)
	}
	if rep := pc.askCode(); rep.Status != api.EnrolPending {
		t.Errorf("the old PC: %+v; want unknown again", rep)
	}
	// And now it gets a job like any other.
	j, err := s.cli.CreateJob(ctx, api.JobCreate{Image: s.image, Room: "A101", Confirm: "A101"})
	if err != nil || len(j.Slots) != 1 {
		t.Fatalf("job: %+v, %v", j, err)
	}
	real := newAgent(s, h)
	real.ev = other.ev
	if rep := real.enrol(); rep.Status != api.EnrolOK {
		t.Errorf("the agent of the bound PC: %+v", rep)
	}
}

func TestWrongCodesLockAllCodes(t *testing.T) {
	s := newSite(t)
	s.learn("r1")
	one := s.newPC(1)
	code := one.code()
	wrong := "000000"
	if code == wrong {
		wrong = "000001"
	}
	for range 5 {
		_, err := s.cli.Bind(t.Context(), api.EnrolBind{Code: wrong, Room: "r1", Name: "x1"})
		s.wantProblem(err, api.CodeNotFound)
	}
	_, err := s.cli.Bind(t.Context(), api.EnrolBind{Code: code, Room: "r1", Name: "x1"})
	s.wantProblem(err, api.CodeTooManyTries)
	fresh := one.code()
	if fresh == code {
		t.Error("a locked code is shown on")
	}
	if _, err := s.cli.Bind(t.Context(), api.EnrolBind{Code: fresh, Room: "r1", Name: "x1"}); err != nil {
		t.Error(err)
	}
}

// TestSeatWalkBindsInTheOrderOfAppearance and a reset of a PC does not change
// its place.
func TestSeatWalkBindsInTheOrderOfAppearance(t *testing.T) {
	s := newSite(t)
	s.learn("r1")
	pcs := []*agent{s.newPC(3), s.newPC(1), s.newPC(2)}
	for _, pc := range pcs {
		pc.code()
	}
	again := s.newPC(3) // reset: another boot of the first one
	again.code()
	list, err := s.cli.Enrolments(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, w := range list {
		if w.MAC != pcs[i].host.MAC {
			t.Errorf("place %d: %s; want %s", i, w.MAC, pcs[i].host.MAC)
		}
		h, err := s.cli.Bind(t.Context(), api.EnrolBind{ID: w.ID, Room: "r1", Seat: fmt.Sprintf("%02d", i+1)})
		if err != nil || h.MAC != pcs[i].host.MAC {
			t.Errorf("bind %d: %+v, %v", i, h, err)
		}
	}
}

func TestEnrolProfileOfAKnownArmedHostGetsNoOrder(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	s.learn("r1")
	a := newAgent(s, h)
	if rep := a.askCode(); rep.Status != api.EnrolBound || rep.Host != "a1" {
		t.Errorf("%+v", rep)
	}
	a.refused("GET", api.RouteOrder, nil, api.CodeNoSession)
	s.wantState("a1", api.StateArmed)
}

// TestAmbiguousPCIsAQuestion and its answers do what they say.
func TestAmbiguousPCIsAQuestion(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	const board = "99999999-4455-6677-8899-aabbccddeeff"
	for range 3 {
		if d := s.ask(decide.ProtoProxy, h.MAC, board); d.Reason != decide.ReasonAmbiguous {
			t.Fatal(d)
		}
	}
	q := s.question(api.QuestionAmbiguous)
	if q.Host != "a1" || q.Room != "r1" || len(q.Choices) != 4 {
		t.Errorf("question: %+v", q)
	}
	_, err := s.cli.Answer(t.Context(), q.ID, "maybe")
	s.wantProblem(err, api.CodeUsage)
	if _, err := s.cli.Answer(t.Context(), q.ID, api.AnswerNewBoard); err != nil {
		t.Fatal(err)
	}
	_, err = s.cli.Answer(t.Context(), q.ID, api.AnswerNewBoard)
	s.wantProblem(err, api.CodeConflict)
	s.restart() // a new boot
	if d := s.ask(decide.ProtoProxy, h.MAC, board); d.Reason != decide.ReasonNoJob {
		t.Errorf("with its new board: %+v", d)
	}
	if got, err := s.cli.Host(t.Context(), "a1"); err != nil || got.UUID != board {
		t.Errorf("host: %+v, %v", got, err)
	}
}

func (s *site) question(kind string) api.Question {
	s.t.Helper()
	list, err := s.cli.Questions(s.t.Context())
	if err != nil || len(list) != 1 || list[0].Kind != kind {
		s.t.Fatalf("questions: %+v, %v; want one of kind %s", list, err, kind)
	}
	return list[0]
}

func TestTwoBootsQuarantineBoth(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	first, clone := newAgent(s, h), newAgent(s, h)
	first.enrol()
	first.order()
	first.progress(api.StateChecking, nil)
	if rep := clone.enrol(); rep.Status != api.EnrolWait {
		t.Fatalf("clone = %+v", rep)
	}
	time.Sleep(1100 * time.Millisecond) // longer than a message can have been under way
	first.progress(api.StateChecking, nil)
	if rep := clone.enrol(); rep.Status != api.EnrolGoLocal {
		t.Fatalf("clone = %+v", rep)
	}
	// The first one is not past its point of no return, and does not get there.
	first.refused("POST", api.RouteCommence, first.plan(), api.CodeNotNow)
	if d := s.ask(decide.ProtoHTTPIPXE, h.MAC, h.UUID); d.Reason != decide.ReasonQuarant {
		t.Errorf("boot: %+v", d)
	}
	q := s.question(api.QuestionQuarantine)
	if _, err := s.cli.Answer(t.Context(), q.ID, api.AnswerRelease); err != nil {
		t.Fatal(err)
	}
	first.commence()
}

func TestSwappedDiskFailsClosed(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.createJob()
	a, cleared := s.deploy(h)
	var ack api.ResultAck
	a.ok("POST", api.RouteResult, a.goodResult(cleared.Fence()), &ack)
	a.progress(api.StateRebooting, nil)
	if _, err := s.cli.CancelJob(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.createJob()
	b := newAgent(s, h)
	b.ev.Disks[0].Serial = "ANOTHER"
	rep := b.enrol()
	if sl := s.slot("a1"); rep.Status != api.EnrolGoLocal || sl.State != api.StateFailed || sl.Code != api.CodeDiskNew {
		t.Fatalf("a swapped disk: %+v, %+v", rep, sl)
	}
	b.refused("GET", api.RouteOrder, nil, api.CodeNoOrder)
	q := s.question(api.QuestionNewDisk)
	if !strings.Contains(q.Text, "ANOTHER") {
		t.Errorf("question: %s", q.Text)
	}
	if _, err := s.cli.AcceptDisks(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.cli.Questions(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after accept-disk: %+v, %v", list, err)
	}
	s.createJob()
	c := newAgent(s, h)
	c.ev = b.ev
	if rep := c.enrol(); rep.Status != api.EnrolOK {
		t.Errorf("the accepted disk: %+v", rep)
	}
	c.order()
}

func TestProtectedHostsAreWrittenOnlyByName(t *testing.T) {
	s := newSite(t)
	h := s.host("a1")
	s.host("a2")
	h.Protect = true
	if _, err := s.cli.PutHost(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	j := s.createJob()
	for _, sl := range j.Slots {
		if want := map[string]api.State{"a1": api.StateSkipped, "a2": api.StateArmed}[sl.Host]; sl.State != want {
			t.Errorf("%s is %s; want %s", sl.Host, sl.State, want)
		}
	}
	byName := api.JobCreate{Image: s.image, Hosts: []string{"a1"}, Confirm: s.image}
	if _, err := s.cli.CreateJob(t.Context(), byName); err == nil {
		t.Error("by its name, without a confirm of its own")
	}
	byName.ConfirmProtected = []string{"a1"}
	if _, err := s.cli.CreateJob(t.Context(), byName); err != nil {
		t.Errorf("by its name: %v", err)
	}
}

func TestImportIsAllOrNothing(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	var b strings.Builder
	b.WriteString("room,seat,row,col,mac\n")
	for i := range 60 {
		fmt.Fprintf(&b, "B%d,%02d,%d,%d,52:54:00:00:0f:%02x\n", i/30, i%30+1, i%30/10+1, i%10+1, i)
	}
	req := api.ImportRequest{What: "hosts", Format: "csv", Text: b.String()}
	for _, tc := range []struct {
		text string
		save bool
		want int
	}{{b.String(), false, 0}, {b.String() + "B1,31,9,9,52:54:00:00:0f:00\n", true, 0}, {b.String(), true, 60}} {
		req.Text, req.Save = tc.text, tc.save
		res, err := s.cli.Import(ctx, req)
		if err != nil || res.Saved != (tc.want > 0) {
			t.Fatalf("import: %+v, %v", res, err)
		}
		if hosts, err := s.cli.Hosts(ctx); err != nil || len(hosts) != tc.want {
			t.Errorf("%d hosts, %v; want %d", len(hosts), err, tc.want)
		}
	}
	s.restart()
	rooms, err := s.cli.Rooms(ctx)
	if err != nil || len(rooms) != 2 || len(rooms[0].Seats) != 30 || len(rooms[1].Hosts) != 30 || rooms[0].Rows != 3 {
		t.Errorf("rooms: %+v, %v", rooms, err)
	}
	out, err := s.cli.Export(ctx, "hosts", "csv")
	if err != nil || strings.Count(out.Text, "\n") != 61 {
		t.Errorf("export: %v\n%s", err, out.Text)
	}
}
