package classroom

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labswarm/api"
)

// serverSilence is how long the server may not answer before a run is given up; a
// test that kills the server starts it again well within it.
const serverSilence = 90 * time.Second

var errTimeUp = errors.New("the time given by --timeout is up")

// Run runs a whole classroom: image, server, hosts, job, terminals, until each has
// booted its new system, has failed, or the time is up. Everything it made is gone
// when it returns. The report is there whenever the job was created, also beside
// an error; terminals that failed are no error but part of the report.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	s, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, errTimeUp)
	defer cancel()
	if err := s.AddHosts(ctx, s.terminals...); err != nil {
		return nil, err
	}
	job, err := s.CreateJob(ctx)
	if err != nil {
		return nil, err
	}
	s.say.line("job %d: %s/%s to %d terminals, %d cells, %s each at most", job.ID, job.Image, job.Version,
		len(s.terminals), job.Cells, mib(job.BytesShipped))
	job, err = s.follow(ctx, job)
	if errors.Is(err, errTimeUp) {
		err = nil // the report says which terminals are not done
	}
	r := s.report(job)
	if s.Report != "" {
		err = errors.Join(err, r.Write(s.Report))
	}
	s.summary(r, job)
	if err != nil || r.ExitCode() != ExitOK {
		s.say.line("server log, last lines:\n%s", s.ServerLog(10))
		if s.Report != "" {
			err = errors.Join(err, s.SaveLogs(logDir(s.Report)))
			s.say.line("all logs: %s", logDir(s.Report))
		}
	}
	return r, err
}

// follow switches the terminals on and watches the job; with the console in front
// when that is wanted.
func (s *Session) follow(ctx context.Context, job api.Job) (api.Job, error) {
	closeConsole := s.openConsole(ctx)
	defer closeConsole()
	ctx, cancel := context.WithCancel(ctx)
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.powerOnAll(ctx)
	}()
	defer func() {
		cancel()
		<-started
	}()
	return s.Watch(ctx, job)
}

// powerOnAll switches the terminals on one after the other; it ends with the last
// one or with ctx.
func (s *Session) powerOnAll(ctx context.Context) {
	for i, t := range s.terminals {
		if i > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(s.Stagger):
			}
		}
		if err := t.PowerOn(ctx); err != nil {
			t.fail(err.Error())
		}
	}
}

// Watch follows a job until every terminal has come to an end, and returns the
// job as last seen.
func (s *Session) Watch(ctx context.Context, job api.Job) (api.Job, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	lastAnswer, lastLine := time.Now(), time.Now()
	states := map[string]api.State{}
	for {
		fresh, err := s.Job(ctx, job.ID)
		switch {
		case err == nil:
			job, lastAnswer = fresh, time.Now()
		case ctx.Err() != nil: // reported below
		case time.Since(lastAnswer) > serverSilence:
			return job, fmt.Errorf("the server has not answered for %v: %w; it said last:\n%s", serverSilence, err, s.ServerLog(8))
		}
		s.tellChanges(job, states)
		if time.Since(lastLine) > 10*time.Second {
			lastLine = time.Now()
			s.say.line("%s", progressLine(job))
		}
		if s.OnJob != nil {
			if err := s.OnJob(ctx, s, job); err != nil {
				return job, err
			}
		}
		all := true
		for _, t := range s.terminals {
			over, err := t.look(slotOf(job, t.Name))
			if err != nil {
				return job, err
			}
			all = all && over
		}
		if all {
			return job, nil
		}
		select {
		case <-ctx.Done():
			s.notInTime(ctx)
			return job, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// look decides whether terminal t has come to an end.
func (t *Terminal) look(slot *api.Slot) (over bool, err error) {
	if slot == nil {
		t.fail("the job has no slot for this terminal")
		return true, nil
	}
	if slot.State.Good() {
		seen, err := t.sawLocalOS()
		if err != nil {
			return false, err
		}
		if seen && slot.State == api.StateConfirmed {
			return true, t.vm.Kill()
		}
	} else if slot.State.Ended() || slot.State == api.StateHeld {
		t.fail(fmt.Sprintf("%s: %s", slot.Code, slot.Error))
		return true, t.vm.Kill()
	}
	if t.endedByItself() && !t.hasLocalOS() {
		t.fail("the terminal switched itself off before its own system was seen; its last lines:\n" + t.vm.Tail(6))
		return true, nil
	}
	return t.failed(), nil
}

// offGrace is how long a terminal may be off before that counts: what the server
// knows about it may be older, above all while the server is being restarted.
const offGrace = 20 * time.Second

// endedByItself reports whether the machine has been off for offGrace, though
// nobody switched it off.
func (t *Terminal) endedByItself() bool {
	off := t.vm.Done() != nil && !t.vm.Running()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on || !off {
		t.offSince = time.Time{}
		return false
	}
	if t.offSince.IsZero() {
		t.offSince = time.Now()
	}
	return time.Since(t.offSince) > offGrace
}

func (t *Terminal) hasLocalOS() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.localOS
}

func (t *Terminal) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != ""
}

// fail notes why the terminal did not come through; the first reason stays.
func (t *Terminal) fail(reason string) {
	t.mu.Lock()
	first := t.err == ""
	if first {
		t.err = reason
	}
	t.mu.Unlock()
	if first {
		t.s.say.line("%s: %s", t.Name, reason)
	}
}

// notInTime gives every unfinished terminal the reason why the run ended.
func (s *Session) notInTime(ctx context.Context) {
	for _, t := range s.terminals {
		if !t.hasLocalOS() {
			t.fail(fmt.Sprintf("not finished when the run ended (%v); its last lines:\n%s", context.Cause(ctx), t.vm.Tail(6)))
		}
	}
}

func slotOf(job api.Job, host string) *api.Slot {
	for i := range job.Slots {
		if job.Slots[i].Host == host {
			return &job.Slots[i]
		}
	}
	return nil
}

// report puts together what server and classroom know.
func (s *Session) report(job api.Job) *Report {
	r := &Report{
		Image:         ImageReport{Name: job.Image, Version: job.Version, BytesShipped: job.BytesShipped, Cells: job.Cells},
		SeedBytesSent: job.SeedSent, SeedWireBytes: job.SeedWire,
		Hosts: []HostReport{},
	}
	zero := s.start()
	r.DurationS = float64(time.Since(zero).Milliseconds()) / 1000
	for _, t := range s.terminals {
		slot := slotOf(job, t.Name)
		t.mu.Lock()
		h := HostReport{Name: t.Name, MAC: t.vm.MAC, Firmware: string(t.vm.Firmware), LocalOS: t.localOS, Error: t.err}
		h.Timeline = timeline(zero, slot, t.own)
		if t.checkErr != nil && h.Error == "" {
			h.Error = t.checkErr.Error()
		}
		if s.CheckDisks && !t.checked && h.Error == "" {
			h.Error = "the disk was not compared: the reset after DONE was not seen"
		}
		t.mu.Unlock()
		if slot != nil {
			h.State, h.Attempts, h.Verified = slot.State, slot.Attempt, slot.Verified
			h.BytesFromSeed, h.BytesFromPeers = slot.BytesFromSeed, slot.BytesFromPeers
			h.CellsWritten, h.CellsKept = slot.CellsWritten, slot.CellsKept
			if h.Error == "" && slot.Error != "" && !slot.State.Good() {
				h.Error = slot.Error
			}
		}
		r.Hosts = append(r.Hosts, h)
	}
	return r
}
