package control

import (
	"testing"
	"testing/synctest"
	"time"

	"labswarm/api"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// TestPruneForgetsWhatIsOver: answered questions go after a month, open ones
// never; events after 400 days.
func TestPruneForgetsWhatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := idle(t, store.NewMem())
		b.room(2)
		ask := func(host string) {
			t.Helper()
			if err := b.store.Update(t.Context(), func(tx store.Tx) error {
				_, err := askTx(tx, "new_disk/"+host, api.Question{Kind: api.QuestionNewDisk, Host: host, Choices: []api.Choice{{Name: api.AnswerIgnore}}}, time.Now())
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		ask("a1")
		ask("a2")
		if _, err := b.Answer(t.Context(), 1, api.AnswerIgnore); err != nil {
			t.Fatal(err)
		}
		left := func(what string, questions, open int, events bool) {
			t.Helper()
			if err := b.prune(t.Context()); err != nil {
				t.Fatal(err)
			}
			n := 0
			if err := b.store.View(t.Context(), func(tx store.Tx) error {
				for range tx.Scan("questions/", "", 0) {
					n++
				}
				qs, err := inventory.Questions(tx)
				if len(qs) != open {
					t.Errorf("%s: %d open questions; want %d", what, len(qs), open)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if n != questions || hasEvent(t, b, "question_answered") != events {
				t.Errorf("%s: %d questions; want %d; events are there %v", what, n, questions, !events)
			}
		}
		left("at once", 2, 1, true)
		time.Sleep(questionLife + time.Minute)
		left("after a month", 1, 1, true)
		time.Sleep(400 * 24 * time.Hour)
		left("after 400 days", 1, 1, false)
		before := b.store.Changes()
		left("again", 1, 1, false)
		if b.store.Changes() != before {
			t.Error("a round with nothing to prune writes")
		}
	})
}
