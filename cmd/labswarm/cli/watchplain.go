package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
)

// announceEvery is the pause between two sentences of `job watch --plain`:
// whoever has them read aloud must be able to follow. Failures do not wait.
const announceEvery = 2 * time.Second

// announcer turns pictures of a job into sentences, one a line: for screen
// readers and braille displays. It says what changed and nothing twice.
type announcer struct {
	seats map[string]string // of hosts that have one
	said  map[string]api.State
	tenth int       // percent of the job that was said, in tens
	last  time.Time // of the last sentence that was no failure
}

func newAnnouncer(hosts []api.Host) *announcer {
	a := &announcer{seats: map[string]string{}, said: map[string]api.State{}}
	for _, h := range hosts {
		if h.Seat != "" {
			a.seats[h.Name] = "seat " + h.Seat
		}
	}
	return a
}

// next is what is to be said at now, often nothing. What is not said now is said
// later, as it is then.
func (a *announcer) next(now time.Time, j api.Job) []string {
	var out []string
	for i := range j.Slots {
		s := &j.Slots[i]
		if old, heard := a.said[s.Host]; (s.State == api.StateFailed || s.State == api.StateHeld) && (!heard || old != s.State) {
			a.said[s.Host] = s.State
			out = append(out, a.sentence(now, a.failure(s), &j))
		}
	}
	if !a.last.IsZero() && now.Sub(a.last) < announceEvery {
		return out
	}
	text := a.moves(&j)
	if tenth := int(j.Percent) / 10; text == "" && tenth > a.tenth && j.Result == "" {
		text = fmt.Sprintf("job %d is at %d percent", j.ID, tenth*10)
		if j.EtaS > 0 {
			text += ", about " + units.FormatDuration(time.Duration(j.EtaS)*time.Second) + " left"
		}
	}
	if text == "" {
		return out
	}
	a.tenth = max(a.tenth, int(j.Percent)/10)
	a.last = now
	return append(out, a.sentence(now, text, &j))
}

// sentence is a line with the time and how far the job is.
func (a *announcer) sentence(now time.Time, text string, j *api.Job) string {
	good := 0
	for _, s := range j.Slots {
		if s.State.Good() {
			good++
		}
	}
	return fmt.Sprintf("%s %s. %d of %d done.", now.Format(time.TimeOnly), strings.TrimRight(text, ". "), good, len(j.Slots))
}

func (a *announcer) name(host string) string {
	if s := a.seats[host]; s != "" {
		return s
	}
	return host
}

func (a *announcer) failure(s *api.Slot) string {
	what := "failed"
	if s.State == api.StateHeld {
		what = "is held for a person"
	}
	text := a.name(s.Host) + " " + what + ": " + orWord(strings.TrimRight(s.Error, ". "), "no reason given")
	if s.ReadOut != "" {
		text += ", code " + s.ReadOut
	}
	return text
}

// moves says which hosts have another state: one by its name, several by their
// number.
func (a *announcer) moves(j *api.Job) string {
	by := map[api.State][]string{}
	for _, s := range j.Slots {
		if old, heard := a.said[s.Host]; !heard || old != s.State {
			by[s.State] = append(by[s.State], s.Host)
			a.said[s.Host] = s.State
		}
	}
	var parts []string
	for _, st := range api.AllStates() {
		switch hosts := by[st]; len(hosts) {
		case 0:
		case 1:
			parts = append(parts, a.name(hosts[0])+" is "+stateWords(st))
		default:
			parts = append(parts, fmt.Sprintf("%d PCs are %s", len(hosts), stateWords(st)))
		}
	}
	return strings.Join(parts, ", ")
}

// stateWords is a state as one says it.
func stateWords(s api.State) string {
	switch s {
	case api.StatePending:
		return "not armed yet"
	case api.StateChecking:
		return "checking its own disk"
	case api.StateCapturing:
		return "being read for an image"
	case api.StateVerifying:
		return "reading everything back"
	case api.StateFinalising:
		return "writing its partition table"
	case api.StateDone:
		return "done, written and verified"
	case api.StateRebooting:
		return "restarting"
	case api.StateConfirmed:
		return "running its new system"
	case api.StateNoShow:
		return "not there, it never started"
	}
	return strings.ReplaceAll(strings.ToLower(string(s)), "_", " ")
}

// plainWatcher is a watcher for `job watch --plain`.
func (e *env) plainWatcher(ctx context.Context, c *client.Client) func(api.Job) error {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		e.hint("labswarm: seats are not known, PCs are called by their names: %v", err)
	}
	a := newAnnouncer(hosts)
	return func(j api.Job) error {
		for _, l := range a.next(time.Now(), j) {
			if err := e.printf("%s\n", l); err != nil {
				return err
			}
		}
		return nil
	}
}
