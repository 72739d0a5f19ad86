package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
)

func newJobWatch(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "watch [JOB]", Short: "follow a job to its end; without a number the newest", Args: atMostOne,
		Long: `Watch prints a line whenever a host changes state and one every 10 s; with --json
one object per line, whose message_type is status, event or summary. With --plain it
prints sentences for screen readers, at most one every 2 s beside failures. It ends with the job: exit code 0 when all hosts are proven, 3
when some are, 1 when none. Ctrl-C leaves the job running.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := e.client()
			defer c.Close()
			id, err := jobID(cmd, c, args)
			if err != nil {
				return err
			}
			return e.watchJob(cmd.Context(), c, id)
		},
	}
}

// errJobEnded leaves the event stream.
var errJobEnded = errors.New("job ended")

func (e *env) watchJob(ctx context.Context, c *client.Client, id uint64) error {
	w := &watcher{e: e, states: map[string]string{}, tty: canRedraw(e.out)}
	see := w.see
	switch {
	case e.json:
		see = w.seeJSON
	case e.plain:
		see = e.plainWatcher(ctx, c)
	}
	job, err := e.follow(ctx, c, id, func(j api.Job) (bool, error) { return j.Result != "", see(j) })
	if err != nil {
		return err
	}
	return w.end(job)
}

// follow shows a job to see until that says that it has seen enough, and returns
// it with its timelines.
func (e *env) follow(ctx context.Context, c *client.Client, id uint64, see func(api.Job) (done bool, err error)) (api.Job, error) {
	job, err := e.followOnly(ctx, c, id, see)
	var code *codeError
	if ctx.Err() != nil && errors.As(err, &code) && code.code == ExitInterrupted {
		text := fmt.Sprintf("job %d goes on; `labswarm job watch %d` looks again, `labswarm job cancel %d` cancels it", id, id, id)
		if e.json {
			return job, &codeError{code: ExitInterrupted, err: errors.New(text)}
		}
		e.hint("%s", text)
	}
	return job, err
}

// followOnly is follow that leaves it to the caller to say what an interruption means.
func (e *env) followOnly(ctx context.Context, c *client.Client, id uint64, see func(api.Job) (done bool, err error)) (api.Job, error) {
	job, err := c.Job(ctx, id)
	if err != nil {
		return job, err
	}
	done, err := see(job)
	if err != nil || done {
		return job, err
	}
	stream, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	lost := func(err error) { e.hint("labswarm: %v; trying again", err) }
	_ = c.Follow(stream, client.Latest, nil, func(t api.Tick) {
		j, err := pick(stream, c, t, id)
		done := false
		if err == nil && j.ID == id {
			done, err = see(j)
		}
		switch {
		case err != nil:
			stop(err)
		case done:
			stop(errJobEnded)
		}
	}, lost) // ends with stream, whose cause says why
	if why := context.Cause(stream); !errors.Is(why, errJobEnded) {
		if ctx.Err() != nil {
			return job, &codeError{code: ExitInterrupted}
		}
		return job, why
	}
	return c.Job(ctx, id)
}

// pick finds the job in a tick. Ticks hold live jobs and those that ended a
// short while ago: one that ended while the server was away is asked for.
func pick(ctx context.Context, c *client.Client, t api.Tick, id uint64) (api.Job, error) {
	for _, j := range t.Jobs {
		if j.ID == id {
			return j, nil
		}
	}
	j, err := c.Job(ctx, id)
	var away *client.UnreachableError
	if errors.As(err, &away) {
		return api.Job{}, nil // not known now: the stream breaks too, and is opened again
	}
	return j, err
}

// watcher prints what is new.
type watcher struct {
	e      *env
	states map[string]string
	last   time.Time
	tty    bool
	drawn  bool
}

func (w *watcher) see(j api.Job) error {
	for _, s := range j.Slots {
		now := fmt.Sprintf("%s %d %s", s.State, s.Attempt, s.Error)
		if w.states[s.Host] == now {
			continue
		}
		w.states[s.Host] = now
		line := slotLine(s)
		if c := cellsLine(s, j.Cells); c != "" && s.State == api.StateDone {
			line += "  " + c
		}
		if err := w.print("%s  %s\n", time.Now().Format(time.TimeOnly), line); err != nil {
			return err
		}
		w.last = time.Time{}
	}
	switch {
	case w.e.quiet:
	case w.tty:
		w.drawn = true
		_, err := fmt.Fprintf(w.e.out, "\r%s\x1b[K", cut(clean(bar(j)), w.e.out))
		return err
	case time.Since(w.last) >= progressEvery:
		w.last = time.Now()
		return w.print("%s  %s\n", w.last.Format(time.TimeOnly), jobLine(j))
	}
	return nil
}

// print writes a line, first clearing the bar.
func (w *watcher) print(format string, args ...any) error {
	if w.drawn {
		w.drawn = false
		if _, err := io.WriteString(w.e.out, "\r\x1b[K"); err != nil {
			return err
		}
	}
	return w.e.printf(format, args...)
}

// end prints the report and turns the job's result into an exit code.
func (w *watcher) end(j api.Job) error {
	if w.drawn {
		if err := w.print("%s\n", bar(j)); err != nil {
			return err
		}
	}
	if w.e.json {
		if err := w.e.printLine(statusLine{j, "summary"}); err != nil {
			return err
		}
	} else if err := w.e.report(j); err != nil {
		return err
	}
	good := 0
	for _, s := range j.Slots {
		if s.State.Good() {
			good++
		}
	}
	switch {
	case good == len(j.Slots):
		return nil
	case good > 0:
		return &codeError{code: ExitPartial, err: w.why(j, good)}
	}
	return &codeError{code: ExitFailed, err: w.why(j, good)}
}

// why is the error of a job that did not reach all hosts, for programs; people
// have read the report.
func (w *watcher) why(j api.Job, good int) error {
	if !w.e.json {
		return nil
	}
	return fmt.Errorf("job %d: %d of %d hosts are done: %s", j.ID, good, len(j.Slots), counts(j))
}

// bar is the picture of a job on one line of a terminal.
func bar(j api.Job) string {
	n := max(0, min(30, int(j.Percent/100*30)))
	return fmt.Sprintf("[%s%s] %s", strings.Repeat("#", n), strings.Repeat("-", 30-n), jobLine(j))
}

// jobLine is a job in one line.
func jobLine(j api.Job) string {
	eta := ""
	if j.EtaS >= 0 && j.Result == "" {
		eta = fmt.Sprintf("  about %s left", units.FormatDuration(time.Duration(j.EtaS)*time.Second))
	}
	return fmt.Sprintf("job %d  %3.0f %%  %s%s  %s", j.ID, j.Percent, units.FormatRate(j.RateBps), eta, counts(j))
}

// counts says how many hosts are in which state, in the order of a deployment.
func counts(j api.Job) string {
	n := map[api.State]int{}
	for _, s := range j.Slots {
		n[s.State]++
	}
	var words []string
	for _, s := range api.AllStates() {
		if n[s] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	return strings.Join(words, ", ")
}

// slotLine is a host in one line; a failure is a sentence.
func slotLine(s api.Slot) string {
	line := fmt.Sprintf("%-16s %-10s", s.Host, s.State)
	switch s.State {
	case api.StateChecking, api.StateCapturing, api.StateWriting, api.StateVerifying:
		line += fmt.Sprintf(" %3.0f %%  %s", s.Percent, units.FormatRate(s.RateBps))
		if s.Parent != "" {
			line += "  from " + s.Parent
		}
	}
	if s.Attempt > 1 {
		line += fmt.Sprintf("  attempt %d", s.Attempt)
	}
	if s.SilentS > 10 {
		line += fmt.Sprintf("  silent for %d s", s.SilentS)
	}
	if s.Error != "" {
		line += fmt.Sprintf("  %s: %s", orWord(s.Code, "error"), s.Error)
	} else if s.Detail != "" {
		line += "  " + s.Detail
	}
	return strings.TrimRight(line, " ")
}
