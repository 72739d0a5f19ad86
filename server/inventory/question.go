package inventory

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

const (
	keyQuestion  = "questions/"
	keyAsked     = "qopen/" // + what it is about: the open question's number
	maxQuestions = 200      // open ones; MACs can be invented
)

func questionKey(id uint64) string { return fmt.Sprintf("%s%016x", keyQuestion, id) }

// Asked returns the open question about something, 0 = none.
func Asked(tx store.Tx, about string) (uint64, error) {
	raw, err := tx.Get(keyAsked + strings.ToLower(about))
	if err != nil || raw == nil {
		return 0, err
	}
	var id uint64
	err = json.Unmarshal(raw, &id)
	return id, err
}

// Ask stores a question, once while it is open. about is what makes it the same
// question. It reports whether it is a new one.
func Ask(tx store.Tx, about string, q api.Question, now time.Time) (bool, error) {
	if id, err := Asked(tx, about); err != nil || id != 0 {
		return false, err
	}
	n := 0
	for range tx.Scan(keyAsked, "", maxQuestions) {
		n++
	}
	if n >= maxQuestions {
		return false, nil // the safe answer holds meanwhile: nobody gets an order
	}
	id, err := tx.Seq("question")
	if err != nil {
		return false, err
	}
	q.ID, q.Asked, q.Answer = id, now.UTC(), ""
	if err := putQuestion(tx, q); err != nil {
		return false, err
	}
	raw, err := json.Marshal(id)
	if err != nil {
		return false, err
	}
	return true, tx.Put(keyAsked+strings.ToLower(about), raw)
}

func putQuestion(tx store.Tx, q api.Question) error {
	raw, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("encode question %d: %w", q.ID, err)
	}
	return tx.Put(questionKey(q.ID), raw)
}

// Question returns one; *NotFoundError when there is none.
func Question(tx store.Tx, id uint64) (api.Question, error) {
	var q api.Question
	raw, err := tx.Get(questionKey(id))
	if err != nil {
		return q, err
	}
	if raw == nil {
		return q, &NotFoundError{Kind: "question", Name: fmt.Sprint(id)}
	}
	return q, json.Unmarshal(raw, &q)
}

// Questions lists the open ones, the oldest first.
func Questions(tx store.Tx) ([]api.Question, error) {
	out := []api.Question{}
	for _, raw := range tx.Scan(keyQuestion, "", 0) {
		var q api.Question
		if err := json.Unmarshal(raw, &q); err != nil {
			return nil, fmt.Errorf("read question: %w", err)
		}
		if q.Answer == "" {
			out = append(out, q)
		}
	}
	return out, nil
}

const pruneAtOnce = 50 // questions

// OldQuestions lists questions, at most 50, that were answered before a time.
func OldQuestions(tx store.Tx, before time.Time) ([]uint64, error) {
	var out []uint64
	for _, raw := range tx.Scan(keyQuestion, "", 0) {
		var q api.Question
		if err := json.Unmarshal(raw, &q); err != nil {
			return nil, fmt.Errorf("read question: %w", err)
		}
		if q.Answer != "" && q.Answered.Before(before) && len(out) < pruneAtOnce {
			out = append(out, q.ID)
		}
	}
	return out, nil
}

// ForgetQuestions deletes questions.
func ForgetQuestions(tx store.Tx, ids []uint64) error {
	for _, id := range ids {
		if err := tx.Delete(questionKey(id)); err != nil {
			return err
		}
	}
	return nil
}

// Close stores an answer; what follows from it is the caller's.
func Close(tx store.Tx, q api.Question, answer string, now time.Time) (api.Question, error) {
	q.Answer, q.Answered = answer, now.UTC()
	var about []string
	for key, raw := range tx.Scan(keyAsked, "", 0) {
		var id uint64
		if json.Unmarshal(raw, &id) == nil && id == q.ID {
			about = append(about, key)
		}
	}
	for _, key := range about {
		if err := tx.Delete(key); err != nil {
			return q, err
		}
	}
	return q, putQuestion(tx, q)
}

// AskDoubt makes the question about evidence that does not fit together.
func AskDoubt(d Doubt, why string) (about string, q api.Question) {
	q = api.Question{Kind: api.QuestionAmbiguous, Host: d.ByMAC, MAC: d.MAC, UUID: d.UUID,
		Text: "a PC asked to boot, and " + why + ". It boots its own disk and gets no order until this is answered."}
	add := func(name, text string) { q.Choices = append(q.Choices, api.Choice{Name: name, Text: text}) }
	if d.UUID != "" {
		add(api.AnswerSharedNIC, "the network card "+d.MAC+" is a dock or dongle that travels: go by the UUID")
		add(api.AnswerNotUnique, "the UUID "+d.UUID+" stands in several PCs: go by the MAC")
		if d.ByUUID == "" {
			add(api.AnswerNewBoard, "it is host "+d.ByMAC+" with a new mainboard")
		}
	}
	add(api.AnswerIgnore, "leave it as it is")
	return "ambiguous/" + d.ByMAC, q
}
