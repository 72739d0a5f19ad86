package decide

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// want is the table of control.md section 4 stated a second time and on its
// own: each row is a condition, the first that holds wins. It shares no code
// with Decide.
func want(f Facts) Action {
	s := f.Slot
	has := s != nil
	if !has {
		s = &SlotView{}
	}
	ponr := has && s.PONR
	live := has && s.Phase == PhaseLive
	held := has && s.Phase == PhaseHeld
	failed := has && s.Phase == PhaseFailed
	ended := has && s.Phase == PhaseEnded
	pending := has && s.Phase == PhasePending
	inProxy := f.Proto == "proxy" || f.Proto == "proxy4011"
	row10 := ponr && !s.DiskBootable && (!s.AttemptsLeft || failed || held || (!f.WindowOpen && !s.FinishPolicy))
	rows := []struct {
		when bool
		then Action
	}{
		{!f.StoreOK || f.Maintenance, Local}, // 1
		{f.Identity == Self || f.Identity == Quarantined || f.Identity == Ambiguous || f.Flags.Exclude, Local}, // 2
		{f.Session != nil && f.Session.AnsweredLocal, Local},                                                   // 3
		{f.Identity == Unknown && f.Learn, Enrol},                                                              // 4
		{f.Identity == Unknown && inProxy, Ignore},                                                             // 5
		{f.Identity == Unknown, Local},                                                                         // 5
		{f.Flags.RescueLive, Agent},                                                                            // 6
		{!has || pending || ended, Local},                                                                      // 7
		{failed && !row10, Local},                                                                              // 7
		{!ponr && (!f.WindowOpen || f.Paused || held || !s.AttemptsLeft), Local},                               // 8
		{live && s.AttemptsLeft && (f.WindowOpen || (ponr && s.FinishPolicy && s.InOverrun)), Agent},           // 9
		{row10, Hold}, // 10
		{true, Local}, // 11
	}
	for _, r := range rows {
		if r.when {
			return r.then
		}
	}
	return Local
}

// every calls fn with all combinations of facts (about 1.2 million).
func every(fn func(Facts)) {
	bools := []bool{false, true}
	var slots []*SlotView
	slots = append(slots, nil)
	for ph := PhasePending; ph <= PhaseEnded; ph++ {
		for m := range 32 {
			slots = append(slots, &SlotView{Phase: ph, PONR: m&1 != 0, DiskBootable: m&2 != 0,
				AttemptsLeft: m&4 != 0, FinishPolicy: m&8 != 0, InOverrun: m&16 != 0})
		}
	}
	sessions := []*Session{nil, {}, {AnsweredLocal: true}}
	for id := Unknown; id <= Self; id++ {
		for _, slot := range slots {
			for m := range 128 {
				b := func(i int) bool { return bools[m>>i&1] }
				for _, ses := range sessions {
					for _, p := range Protos() {
						fn(Facts{Identity: id, Flags: Flags{Exclude: b(0), RescueLive: b(1)}, Slot: slot, Learn: b(2), Paused: b(3),
							StoreOK: b(4), Maintenance: b(5), WindowOpen: b(6), Session: ses, Proto: p})
					}
				}
			}
		}
	}
}

func describe(f Facts) string {
	slot := "none"
	if f.Slot != nil {
		slot = fmt.Sprintf("%+v", *f.Slot)
	}
	return fmt.Sprintf("%+v slot=%s session=%+v", f, slot, f.Session)
}

func TestEveryCombination(t *testing.T) {
	count := map[Action]int{}
	bad := 0
	every(func(f Facts) {
		got := Decide(f)
		count[got.Action]++
		if w := want(f); got.Action != w && bad < 5 {
			bad++
			t.Errorf("Decide = %s (%s); want %s for %s", got.Action, got.Reason, w, describe(f))
		}
		if got.Reason == "" {
			t.Fatalf("no reason for %s", describe(f))
		}
	})
	for _, a := range []Action{Local, Ignore, Enrol, Agent, Hold} {
		if count[a] == 0 {
			t.Errorf("no combination gives %s: the enumeration does not reach every row", a)
		}
	}
	t.Logf("combinations by action: %v", count)
}

func drawFacts(t *rapid.T) Facts {
	b := rapid.Bool()
	f := Facts{
		Identity: Identity(rapid.Uint8Range(0, uint8(Self)+3).Draw(t, "identity")), // also values no code makes
		Flags:    Flags{Exclude: b.Draw(t, "exclude"), RescueLive: b.Draw(t, "rescue")},
		Learn:    b.Draw(t, "learn"), Paused: b.Draw(t, "paused"), StoreOK: b.Draw(t, "store"),
		Maintenance: b.Draw(t, "maint"), WindowOpen: b.Draw(t, "window"),
		Proto: rapid.SampledFrom(Protos()).Draw(t, "proto"),
	}
	if b.Draw(t, "hasSlot") {
		f.Slot = &SlotView{Phase: Phase(rapid.Uint8Range(0, uint8(PhaseEnded)+3).Draw(t, "phase")), PONR: b.Draw(t, "ponr"),
			DiskBootable: b.Draw(t, "bootable"), AttemptsLeft: b.Draw(t, "left"), FinishPolicy: b.Draw(t, "finish"), InOverrun: b.Draw(t, "overrun")}
	}
	if b.Draw(t, "hasSession") {
		f.Session = &Session{AnsweredLocal: b.Draw(t, "answeredLocal")}
	}
	return f
}

func TestUnknownOrUnarmedNeverYieldsAgent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		got := Decide(f)
		armed := f.Slot != nil && f.Slot.Phase == PhaseLive
		if got.Action == Agent && got.Profile != ProfileRescue && (f.Identity != Known || !armed) {
			t.Fatalf("agent for %s", describe(f))
		}
		if got.Action == Agent && f.Identity != Known {
			t.Fatalf("agent for an unresolved identity: %s", describe(f))
		}
		if got.Action == Hold && (f.Slot == nil || !f.Slot.PONR) {
			t.Fatalf("hold before the point of no return: %s", describe(f))
		}
	})
}

// TestLearnModeLetsOnlyTheUnknownIn: row 4 gives the enrol profile, which holds
// no writer, to unknown PCs and to nobody else, and rows 1 to 3 come before it.
func TestLearnModeLetsOnlyTheUnknownIn(t *testing.T) {
	n := 0
	every(func(f Facts) {
		got := Decide(f)
		open := f.Identity == Unknown && f.Learn && f.StoreOK && !f.Maintenance && !f.Flags.Exclude && (f.Session == nil || !f.Session.AnsweredLocal)
		if (got.Action == Enrol) != open {
			t.Fatalf("%s for %s", got.Action, describe(f))
		}
		if got.Action == Enrol {
			n++
			if got.Profile != ProfileEnrol {
				t.Fatalf("enrol with profile %q", got.Profile)
			}
		}
		if got.Profile == ProfileEnrol && got.Action != Enrol {
			t.Fatalf("%s with the enrol profile", got.Action)
		}
		if f.Identity == Unknown && (got.Action == Agent || got.Action == Hold) {
			t.Fatalf("%s for an unknown PC: %s", got.Action, describe(f))
		}
	})
	if n == 0 {
		t.Error("nobody can enrol")
	}
}

// Two protocols never differ on the same facts, except that proxyDHCP may
// ignore an unknown PC where the others answer local: both leave it its disk.
func TestProtocolsNeverDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		f.Proto = ProtoHTTPIPXE
		ref := Decide(f)
		for _, p := range Protos() {
			f.Proto = p
			got := Decide(f)
			if got.Action == Ignore && ref.Action == Local && p.proxy() && f.Identity != Known {
				continue
			}
			if got != ref {
				t.Fatalf("%s gives %+v, %s gives %+v for %s", p, got, ProtoHTTPIPXE, ref, describe(f))
			}
		}
	})
}

func TestZeroFactsBootLocal(t *testing.T) {
	if got := Decide(Facts{}); got.Action != Local {
		t.Errorf("Decide(Facts{}) = %v; want local", got)
	}
	if (Decision{}).Action != Local || Action(99).String() != "invalid" {
		t.Error("the zero Decision must be local")
	}
}
