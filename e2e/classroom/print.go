package classroom

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"labswarm/api"
)

// printer writes progress lines, and holds them back while the console owns the
// terminal.
type printer struct {
	mu    sync.Mutex
	out   io.Writer
	held  []string
	quiet bool
	start time.Time
}

func newPrinter(out io.Writer) *printer { return &printer{out: out, start: time.Now()} }

func (p *printer) line(format string, args ...any) {
	l := fmt.Sprintf("%6.1f s  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		p.held = append(p.held, l)
		return
	}
	_, _ = io.WriteString(p.out, l) // a closed pipe must not end the run
}

// hold keeps lines back until release.
func (p *printer) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet = on
	if !on {
		_, _ = io.WriteString(p.out, strings.Join(p.held, ""))
		p.held = nil
	}
}

// openConsole puts labswarm's console in front; the returned function takes it
// away. When the person leaves it earlier, the lines go on.
func (s *Session) openConsole(ctx context.Context) (closeConsole func()) {
	if s.UI != UIConsole {
		return func() {}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.Binary, "--state-dir", s.StateDir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	s.say.line("opening the console (q leaves it, the classroom goes on)")
	if err := cmd.Start(); err != nil {
		s.say.line("console: %v", err)
		return func() {}
	}
	s.say.hold(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how a person leaves the console is no result
		s.say.hold(false)
	}()
	return func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		case <-time.After(4 * time.Second): // time to see the end
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(3 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}
}

// tellChanges prints a line for every terminal whose state is new.
func (s *Session) tellChanges(job api.Job, states map[string]api.State) {
	for _, slot := range job.Slots {
		if states[slot.Host] == slot.State {
			continue
		}
		states[slot.Host] = slot.State
		extra := ""
		if slot.Attempt > 1 {
			extra = fmt.Sprintf(", attempt %d", slot.Attempt)
		}
		if slot.Error != "" {
			extra += ": " + slot.Error
		}
		s.say.line("%s: %s%s", slot.Host, slot.State, extra)
	}
}

// progressLine is one line for the whole room.
func progressLine(job api.Job) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f %%", job.Percent)
	if job.EtaS >= 0 {
		fmt.Fprintf(&b, ", about %d s left", job.EtaS)
	}
	for _, slot := range job.Slots {
		fmt.Fprintf(&b, " | %s %s", slot.Host, slot.State)
		if slot.State == api.StateWriting || slot.State == api.StateVerifying || slot.State == api.StateChecking {
			fmt.Fprintf(&b, " %.0f %% %s/s", slot.Percent, mib(slot.RateBps))
		}
	}
	return b.String()
}

// summary prints the figures of a run.
func (s *Session) summary(r *Report, job api.Job) {
	for _, h := range r.Hosts {
		verdict := "confirmed, its own system seen"
		if !h.Good() {
			verdict = fmt.Sprintf("%s, verified %v, local system seen %v: %s", h.State, h.Verified, h.LocalOS, h.Error)
		}
		line := fmt.Sprintf("%s (%s): %s; %s from the server, %s from other terminals, %d cells written, %d kept",
			h.Name, h.Firmware, verdict, mib(h.BytesFromSeed), mib(h.BytesFromPeers), h.CellsWritten, h.CellsKept)
		if slot := slotOf(job, h.Name); slot != nil && slot.AgentRSSBytes > 0 {
			line += ", agent " + mib(slot.AgentRSSBytes)
		}
		if d, ok := powerOnToAgent(h); ok {
			line += fmt.Sprintf(", power-on to agent %.1f s", d)
		}
		s.say.line("%s", line)
	}
	s.say.line("%d of %d terminals done in %.0f s; the server sent %s on the wire = %.2f copies (%s of image data; one copy is %s)",
		r.Good(), len(r.Hosts), r.DurationS, mib(r.SeedWireBytes), r.Copies(), mib(r.SeedBytesSent), mib(r.Image.BytesShipped))
}

// powerOnToAgent is the time from the first power-on to the agent's enrolment, in
// seconds.
func powerOnToAgent(h HostReport) (float64, bool) {
	on := -1.0
	for _, e := range h.Timeline {
		switch {
		case e.Event == "power on" && on < 0:
			on = e.TS
		case on >= 0 && strings.Contains(strings.ToUpper(e.Event), string(api.StateEnrolled)):
			return e.TS - on, true
		}
	}
	return 0, false
}

// logDir is where a failed run leaves its logs: beside the report.
func logDir(report string) string { return filepath.Join(filepath.Dir(report), "logs") }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
