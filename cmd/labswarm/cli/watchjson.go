package cli

import (
	"time"

	"labswarm/api"
)

// What `job watch --json` prints, one object a line. message_type says which; the
// error at the end goes to standard error (exit_error).
type (
	// statusLine is the job as it is, "status", and at its end "summary".
	statusLine struct {
		api.Job
		Type string `json:"message_type"`
	}
	// changeLine is a host that has another state, "event".
	changeLine struct {
		Type    string    `json:"message_type"`
		Time    time.Time `json:"time"`
		Job     uint64    `json:"job"`
		Host    string    `json:"host"`
		From    api.State `json:"from,omitempty"` // "" = seen for the first time
		State   api.State `json:"state"`
		Code    string    `json:"code,omitempty"`
		Error   string    `json:"error,omitempty"`
		ReadOut string    `json:"read_out,omitempty"`
	}
	// eventLine is one event of the log, "event".
	eventLine struct {
		api.Event
		Type string `json:"message_type"`
	}
)

// changes prints the hosts that have another state than before.
func (w *watcher) changes(j api.Job) (changed bool, err error) {
	for _, s := range j.Slots {
		from := w.states[s.Host]
		if from == string(s.State) {
			continue
		}
		w.states[s.Host], changed = string(s.State), true
		l := changeLine{Type: "event", Time: s.Since.UTC(), Job: j.ID, Host: s.Host, From: api.State(from), State: s.State, Code: s.Code, Error: s.Error, ReadOut: s.ReadOut}
		if err := w.e.printLine(l); err != nil {
			return true, err
		}
	}
	return changed, nil
}

// seeJSON prints what changed, and the whole job then and once a second.
func (w *watcher) seeJSON(j api.Job) error {
	changed, err := w.changes(j)
	if err != nil || !changed && time.Since(w.last) < time.Second {
		return err
	}
	w.last = time.Now()
	return w.e.printLine(statusLine{j, "status"})
}
