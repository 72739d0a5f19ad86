package deploy

import (
	"context"
	"errors"
	"fmt"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/selftest"
	"labswarm/swarm/peer"
)

// A host that accuses several sources is the suspect itself (safety.md section
// 5, rule 4). It tests its memory: when the planner calls it a suspect, and when
// cells come wrong from the server, which is always right. A failed test fails
// the host; nobody else is blamed. One that passes goes on.

// doubt takes the planner's word; s.mu is held.
func (s *session) doubt(suspect bool) {
	if !suspect || s.suspect {
		return
	}
	s.suspect = true
	select {
	case s.doubted <- struct{}{}:
	default:
	}
}

// doubtLoop tests the memory as soon as the planner doubts it, beside the work.
func (s *session) doubtLoop(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.doubted:
	}
	if err := s.clearName(ctx, false); err != nil {
		s.cancel(err)
	}
	return nil
}

// trusted is asked before the disk becomes bootable: a test that runs is waited
// for, and one that is due is made.
func (s *session) trusted(ctx context.Context) error { return s.clearName(ctx, true) }

// clearName tests the memory of a suspect, once. last: nobody asks later.
func (s *session) clearName(ctx context.Context, last bool) error {
	s.testing.Lock()
	defer s.testing.Unlock()
	s.mu.Lock()
	suspect := s.suspect
	s.mu.Unlock()
	if suspect && !s.cleared {
		if _, err := s.testMemory(ctx, "this computer accused or left several others that are well"); err != nil {
			return err
		}
	}
	s.cleared = s.cleared || suspect || last
	return nil
}

// corrupt is the data plane's question whether this machine can be trusted
// after wrong cells from the server. Without a test it cannot.
func (s *session) corrupt(ctx context.Context, e *peer.CorruptError) error {
	s.testing.Lock()
	defer s.testing.Unlock()
	done, err := s.testMemory(ctx, e.Error())
	if err == nil && !done {
		return e
	}
	return err
}

// testMemory tests free memory. The error is a fault of this machine, or the end
// of ctx; done is false when there was no way to test. s.testing is held.
func (s *session) testMemory(ctx context.Context, why string) (done bool, err error) {
	o := s.cfg.SelfTest
	if o.Bytes == 0 {
		o.Bytes = selftest.Size(bootenv.AvailableBytes())
	}
	s.cfg.Log.Warn("memory test begins", "why", why, "bytes", o.Bytes)
	s.testNote("running")
	rep, err := selftest.Run(ctx, o)
	var bad *selftest.BadError
	switch {
	case errors.As(err, &bad):
		s.testNote("failed")
		return true, &api.Fault{Code: api.CodeMemory,
			Text: fmt.Sprintf("the memory of this computer is bad, it spoils what it receives (%s); take the memory modules out one by one, or replace them", why), Err: bad}
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil:
		s.cfg.Log.Error("memory cannot be tested", "err", err)
		s.testNote("not possible: " + err.Error())
		return false, nil
	}
	s.cfg.Log.Warn("memory test passed, going on", "tested", rep.String())
	s.testNote("passed: " + rep.String())
	return true, nil
}

func (s *session) testNote(text string) {
	s.mu.Lock()
	s.tested = text
	s.mu.Unlock()
	s.report()
}
