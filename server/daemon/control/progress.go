package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/job"
)

// Progress takes in a report. Figures stay in RAM; a change of state is
// committed before the answer.
func (e *Engine) Progress(ctx context.Context, cert string, from netip.Addr, p *api.Progress) (api.ProgressReply, error) {
	reply := api.ProgressReply{IntervalMs: progressMs}
	j, s, err := e.session(ctx, cert)
	if err != nil {
		var pr *api.Problem
		if errors.As(err, &pr) && pr.Code == api.CodeNoSession {
			reply.Commands = []string{api.CommandGoLocal}
			return reply, nil
		}
		return reply, err
	}
	k := slotKey{j.ID, s.Host}
	if p.BootID != s.Session.BootID {
		return reply, conflict(api.CodeNoSession, "progress: boot %s is not the one of this session", p.BootID)
	}
	e.hear(k, from, p, s)
	if p.SelfTest != "" {
		how, _, _ := strings.Cut(p.SelfTest, ":")
		e.emitOnce(ctx, fmt.Sprintf("selftest/%v/%.20s", k, how), api.Event{Level: "warn", Code: "memory_suspect", Job: j.ID, Host: s.Host, Room: s.Room,
			Text: fmt.Sprintf("%s has had wrong cells that others had right: memory test %.200s", s.Host, p.SelfTest)})
	}
	switch {
	case p.State == api.StateRebooting && s.State == api.StateDone:
		_, err = e.apply(ctx, k, job.Gone{BootID: p.BootID})
	case p.State != s.State && s.Live():
		var next job.Slot
		if next, err = e.apply(ctx, k, job.Report{BootID: p.BootID, State: p.State, Detail: p.Detail}); err == nil {
			s = &next
		}
	}
	if err != nil {
		return reply, problem(err)
	}
	reply.Commands = commands(s)
	if p.InSwarm && !gone(*s) && !j.IsCapture() {
		e.tellTracker(j, s, from, p)
	}
	if a, ok := e.assignment(j, s.Host); ok {
		reply.Assignment = &a
	}
	return reply, nil
}

// assignment is the planner's word for a host; there is none in a capture.
func (e *Engine) assignment(j *job.Job, host string) (api.Assignment, bool) {
	if j.IsCapture() {
		return api.Assignment{}, false
	}
	return e.cfg.Swarms.Assignment(j.InfoHash, host)
}

// hear keeps the figures of a report.
func (e *Engine) hear(k slotKey, from netip.Addr, p *api.Progress, s *job.Slot) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.liveOf(k)
	o := l.progress
	if p.State != o.State || p.CellsHave != o.CellsHave || p.PhaseDone != o.PhaseDone || p.CellsWritten != o.CellsWritten || l.moved.IsZero() {
		l.moved, l.alerted = now, false
	}
	l.progress, l.heard, l.peerPort = *p, now, s.Session.PeerPort
	if from.IsValid() && from != l.ip && !gone(*s) {
		if l.ip.IsValid() && e.peers[l.ip] == k {
			delete(e.peers, l.ip)
		}
		l.ip = from
	}
	if l.ip.IsValid() && !gone(*s) {
		e.peers[l.ip] = k
	}
}

// commands tells an agent whose slot has ended without it to leave. They are
// hints: an agent that writes finishes.
func commands(s *job.Slot) []string {
	switch {
	case s.State == api.StateCancelled || s.State == api.StateSkipped:
		return []string{api.CommandCancel}
	case s.State == api.StateFailed && !s.PONR:
		return []string{api.CommandGoLocal}
	}
	return nil
}

func (e *Engine) tellTracker(j *job.Job, s *job.Slot, from netip.Addr, p *api.Progress) {
	r := HostReport{
		Host: s.Host, Room: s.Room, Addr: netip.AddrPortFrom(from, uint16(s.Session.PeerPort)),
		Have: p.CellsHave, Front: p.Front, Done: p.CellsTotal > 0 && p.CellsHave >= p.CellsTotal,
		RateBps: p.RateBps, Parent: p.Parent, ParentSlow: p.ParentSlow,
		LinkMbps: s.Session.LinkMbps, Brake: p.Brake, Waiting: p.WaitingForPeers,
	}
	for i, a := range p.AccusedHosts {
		if i == 32 {
			break
		}
		e.cfg.Log.Warn("bad cell", "job", j.ID, "host", s.Host, "peer", a.Host, "cell", a.Piece)
		r.Accused = append(r.Accused, a.Host)
	}
	e.cfg.Swarms.Report(j.InfoHash, r)
}

// Subscribe gives the assignments of a session as they change.
func (e *Engine) Subscribe(ctx context.Context, cert string) (<-chan api.Assignment, func(), error) {
	j, s, err := e.session(ctx, cert)
	if err != nil {
		return nil, nil, err
	}
	if j.IsCapture() {
		return nil, func() {}, nil // nobody is assigned to anybody
	}
	ch, cancel := e.cfg.Swarms.Subscribe(j.InfoHash, s.Host)
	return ch, cancel, nil
}

// Commands returns what the session's agent should be told now.
func (e *Engine) Commands(ctx context.Context, cert string) []string {
	_, s, err := e.session(ctx, cert)
	if err != nil {
		return []string{api.CommandGoLocal}
	}
	return commands(s)
}

// Wake tells when something was committed; used to look for commands.
func (e *Engine) Wake() (<-chan struct{}, func()) { return e.bell.Subscribe() }

// Result commits the end of a deployment and then acknowledges it. The same
// result again gets the same answer.
func (e *Engine) Result(ctx context.Context, cert string, r *api.Result) (api.ResultAck, error) {
	j, s, err := e.session(ctx, cert)
	if err != nil {
		return api.ResultAck{}, err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return api.ResultAck{}, fmt.Errorf("encode result: %w", err)
	}
	sum := sha256.Sum256(raw)
	next, err := e.apply(ctx, slotKey{j.ID, s.Host}, job.Done{Cert: cert, Result: *r, Digest: hex.EncodeToString(sum[:])})
	if err != nil {
		return api.ResultAck{}, problem(err)
	}
	e.keepCode(ctx, j, &next, r)
	return api.ResultAck{OK: true, State: next.State}, nil
}

// SaveLog keeps the last words of an agent under StateDir/logs. The file is
// for people; losing it loses no state.
func (e *Engine) SaveLog(ctx context.Context, cert string, req *api.LogRequest) error {
	j, s, err := e.session(ctx, cert)
	if err != nil {
		return err
	}
	dir := filepath.Join(e.cfg.StateDir, "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the log of %s: %w", s.Host, err)
	}
	name := logName(j.ID, s.Host, s.Hard)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(req.Text), 0o600); err != nil {
		return fmt.Errorf("keep the log of %s: %w", s.Host, err)
	}
	e.cfg.Log.Info("agent log kept", "job", j.ID, "host", s.Host, "file", name)
	return nil
}
