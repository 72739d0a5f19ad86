package control

import (
	"context"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

// Questions lists what waits for an answer.
func (e *Engine) Questions(ctx context.Context) (out []api.Question, err error) {
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		out, err = inventory.Questions(tx)
		return err
	})
	return out, problem(err)
}

// Answer carries out an answer to a question.
func (e *Engine) Answer(ctx context.Context, id uint64, answer string) (q api.Question, err error) {
	err = e.edit(ctx, func(tx store.Tx, now time.Time) (api.Event, error) {
		if q, err = inventory.Question(tx, id); err != nil {
			return api.Event{}, err
		}
		if q.Answer != "" {
			return api.Event{}, conflict(api.CodeConflict, "question %d was answered %s already", id, q.Answer)
		}
		if !slices.ContainsFunc(q.Choices, func(c api.Choice) bool { return c.Name == answer }) {
			var names []string
			for _, c := range q.Choices {
				names = append(names, c.Name)
			}
			return api.Event{}, badRequest(api.CodeUsage, "question %d: answer %q is none of: %s", id, answer, strings.Join(names, ", "))
		}
		if err := e.obey(tx, q, answer, now); err != nil {
			return api.Event{}, err
		}
		q, err = inventory.Close(tx, q, answer, now)
		return api.Event{Code: "question_answered", Host: q.Host, Room: q.Room, Text: "answered " + answer + ": " + q.Text}, err
	})
	return q, err
}

// obey does what an answer means.
func (e *Engine) obey(tx store.Tx, q api.Question, answer string, now time.Time) error {
	var n *inventory.Notice
	var err error
	switch answer {
	case api.AnswerSharedNIC:
		n, err = inventory.ShareMAC(tx, q.MAC)
	case api.AnswerNotUnique:
		n, err = inventory.JunkUUID(tx, q.UUID)
	case api.AnswerNewBoard:
		if err := e.notLive(tx, q.Host, ""); err != nil {
			return err
		}
		_, err = inventory.NewBoard(tx, q.Host, q.UUID)
	case api.AnswerAccept:
		_, err = inventory.AcceptDisks(tx, q.Host)
	case api.AnswerRelease:
		_, err = inventory.Quarantine(tx, q.Host, "")
	case api.AnswerExclude:
		h, gerr := inventory.Quarantine(tx, q.Host, "")
		if gerr != nil {
			return gerr
		}
		h.Exclude = true
		_, err = inventory.Put(tx, h, e.cfg.Self, now)
	}
	if err != nil || n == nil {
		return err
	}
	return notify(tx, *n, now)
}

func notify(tx store.Tx, n inventory.Notice, now time.Time) error {
	_, err := event.Append(tx, api.Event{Time: now.UTC(), Level: "warn", Code: n.Code, Host: n.Host, Text: n.Text})
	return err
}

// askTx stores a question and its event, once while it is open.
func askTx(tx store.Tx, about string, q api.Question, now time.Time) (bool, error) {
	fresh, err := inventory.Ask(tx, about, q, now)
	if err != nil || !fresh {
		return false, err
	}
	_, err = event.Append(tx, api.Event{Time: now.UTC(), Level: "warn", Code: "question", Host: q.Host, Room: q.Room,
		Text: "question (labswarm host questions): " + q.Text})
	return true, err
}

// askDoubt asks a person about evidence that does not fit together, and learns
// from it. It is called for boot requests that anybody can forge: it writes at
// most once a minute per MAC, and each host has one open question.
func (e *Engine) askDoubt(ctx context.Context, r inventory.Resolved) {
	if r.Doubt == nil || !e.oncePer(time.Minute, "doubt "+r.Doubt.MAC+r.Doubt.UUID) {
		return
	}
	d := *r.Doubt
	about, q := inventory.AskDoubt(d, r.Why)
	err := e.ifNews(ctx, func(tx store.Tx, write bool) (bool, error) {
		news, n, err := inventory.NoteUUID(tx, d.UUID, d.MAC, write)
		if err != nil {
			return false, err
		}
		if n != nil {
			return true, notify(tx, *n, time.Now()) // that answers the question, too
		}
		if id, err := inventory.Asked(tx, about); err != nil || id != 0 || !write {
			return news || id == 0, err
		}
		if h, err := inventory.Get(tx, d.ByMAC); err == nil {
			q.Room = h.Room
		}
		_, err = askTx(tx, about, q, time.Now())
		return true, err
	})
	if err != nil {
		e.cfg.Log.Error("question not stored", "host", d.ByMAC, "err", err)
	}
}

// ifNews runs fn read-only, and again in a writing transaction when it reports
// that there is something to write.
func (e *Engine) ifNews(ctx context.Context, fn func(tx store.Tx, write bool) (bool, error)) error {
	news := false
	err := e.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		news, err = fn(tx, false)
		return err
	})
	if err != nil || !news {
		return err
	}
	err = e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		_, err := fn(tx, true)
		return err
	})
	if err == nil {
		e.bell.Ring()
	}
	return err
}

// observe learns from what an agent shows, before it is resolved.
func (e *Engine) observe(ctx context.Context, ev api.Evidence) {
	err := e.ifNews(ctx, func(tx store.Tx, write bool) (bool, error) {
		news, notices, err := inventory.Observe(tx, ev, write)
		if err != nil {
			return false, err
		}
		for _, n := range notices {
			if err := notify(tx, n, time.Now()); err != nil {
				return false, err
			}
		}
		return news, nil
	})
	if err != nil {
		e.cfg.Log.Error("evidence not learnt from", "uuid", ev.UUID, "err", err)
	}
}

// quarantine keeps both of two PCs that claim to be one host from getting
// orders. The one that is past its point of no return finishes.
func (e *Engine) quarantine(ctx context.Context, host, text string) {
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		now := time.Now()
		h, err := inventory.Quarantine(tx, host, text)
		if err != nil {
			return err
		}
		_, err = askTx(tx, "quarantined/"+h.Name, api.Question{Kind: api.QuestionQuarantine, Host: h.Name, Room: h.Room, MAC: h.MAC, UUID: h.UUID,
			Text: "host " + h.Name + ": " + text,
			Choices: []api.Choice{{Name: api.AnswerRelease, Text: "the cause is found: it gets orders again"},
				{Name: api.AnswerExclude, Text: "exclude it from all jobs"}}}, now)
		return err
	})
	if err != nil {
		e.cfg.Log.Error("quarantine not stored", "host", host, "err", err)
		return
	}
	e.bell.Ring()
}

// notQuarantined refuses the point of no return to one of two PCs that claim to
// be the same host.
func notQuarantined(tx store.Tx, s *job.Slot) error {
	h, err := inventory.Get(tx, s.Host)
	if err != nil {
		return err
	}
	if h.Quarantined != "" && !s.PONR {
		return conflict(api.CodeNotNow, "commence: host %s is quarantined: %s", s.Host, h.Quarantined)
	}
	return nil
}

// withoutShared drops a serial number that several PCs have: it would be a fact
// by which each of them takes the order for its own.
func withoutShared(tx store.Tx, req *api.EnrolRequest) (*api.EnrolRequest, error) {
	s, err := inventory.UsefulSerial(tx, req.Evidence.Serial)
	if err != nil || s != "" {
		return req, err
	}
	out := *req
	out.Evidence.Serial = ""
	return &out, nil
}

// askDisk asks about a disk that the host did not have before.
func askDisk(tx store.Tx, h api.Host, d api.Disk, now time.Time) error {
	_, err := askTx(tx, "new_disk/"+h.Name, api.Question{Kind: api.QuestionNewDisk, Host: h.Name, Room: h.Room,
		Disks: []api.DiskRef{{WWN: d.WWN, Serial: d.Serial, Model: d.Model, Bytes: d.Bytes}},
		Text:  "host " + h.Name + " has a disk that it did not have before (" + d.Model + ", serial " + orText(d.Serial, "none") + "): may it be written?",
		Choices: []api.Choice{{Name: api.AnswerAccept, Text: "yes: the disks it has now are its own (make a new job then)"},
			{Name: api.AnswerIgnore, Text: "no: leave it as it is"}}}, now)
	return err
}

// oncePer reports whether key was not passed within d.
func (e *Engine) oncePer(d time.Duration, key string) bool {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if last, seen := e.emitted[key]; seen && now.Sub(last) < d {
		return false
	}
	if len(e.emitted) >= maxBoots {
		clear(e.emitted)
	}
	e.emitted[key] = now
	return true
}
