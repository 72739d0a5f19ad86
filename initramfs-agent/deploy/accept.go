package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/bundle"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/disk/target"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/scan"
	"labswarm/initramfs-agent/writer"
	"labswarm/swarm/peercert"
)

func swap(uuid string) string { return identity.SwapUUID(uuid) }

// accept applies every rule to the order. It reads the disk's description only;
// nothing was opened when it returns.
func (s *session) accept(ctx context.Context, env *order.Envelope) (o order.Order, v *order.Verified, b *bundle.Bundle, d api.Disk, err error) {
	peek, err := order.Peek(env, s.facts(order.DiskID{}))
	if err != nil {
		return o, nil, nil, d, err
	}
	s.mu.Lock()
	s.orderID = peek.ID
	s.mu.Unlock()
	disks, err := s.cfg.Disks.List()
	if err != nil {
		return o, nil, nil, d, err
	}
	if d, err = target.Choose(peek.Disk, disks); err != nil {
		return o, nil, nil, d, err
	}
	s.mu.Lock()
	s.disk = d
	s.mu.Unlock()
	s.detail("fetching the description of the image")
	b, err = bundle.Load(func(name string, limit int64) ([]byte, error) { return s.file(ctx, name, limit) }, s.cfg.Pins.ImageKeys, peek.Image.ManifestDigest)
	if err != nil {
		return o, nil, nil, d, err
	}
	if v, err = order.Verify(env, s.facts(target.IDOf(d)), b.Digest); err != nil {
		return o, nil, nil, d, err
	}
	o = v.Order()
	if err := fits(o, b, d); err != nil {
		return o, nil, nil, d, err
	}
	if s.pass, err = s.swarmPass(o, b); err != nil {
		return o, nil, nil, d, err
	}
	s.mu.Lock()
	s.pieces = b.Manifest.Pieces()
	s.mu.Unlock()
	s.powerOff = o.After == "poweroff"
	s.cfg.Log.Info("order accepted", "order", o.ID, "job", o.Job, "attempt", o.Attempt, "image", b.Manifest.Name+"/"+b.Manifest.Version, "disk", target.Describe(d))
	return o, v, b, d, nil
}

// fits compares order, manifest and disk where they repeat each other: the
// manifest is signed by another key than the order, and must agree.
func fits(o order.Order, b *bundle.Bundle, d api.Disk) error {
	m := b.Manifest
	switch {
	case o.Image.Name != m.Name || o.Image.Version != m.Version:
		return &api.Fault{Code: api.CodeBadImage, Text: fmt.Sprintf("the order names image %s/%s, the manifest is of %s/%s", o.Image.Name, o.Image.Version, m.Name, m.Version)}
	case d.Sector != m.Disk.Sector:
		return &api.Fault{Code: api.CodeDiskSector, Text: fmt.Sprintf("nothing was written: the image has %d-byte sectors, the disk has %d: %s; make the image on a disk with such sectors", m.Disk.Sector, d.Sector, target.Describe(d))}
	case d.Bytes < m.Disk.MinSize:
		return &api.Fault{Code: api.CodeDiskTooSmall, Text: fmt.Sprintf("nothing was written: the image needs a disk of %d bytes, this one is too small: %s; use a bigger disk, or shrink the last partition on the reference PC and make the image again", m.Disk.MinSize, target.Describe(d))}
	}
	return target.Foreign(d, o.Replace)
}

// swarmPass is this host's way into the swarm. Without a good one nothing is
// begun: there is no unprotected way beside it.
func (s *session) swarmPass(o order.Order, b *bundle.Bundle) (*peercert.Pass, error) {
	p, err := peercert.NewPass(o.Swarm.Authority, o.Swarm.Cert, s.c.Key())
	switch {
	case err != nil:
	case p.InfoHash() != b.Torrent.InfoHash:
		err = errors.New("it is for another image")
	case p.ID().Boot != s.c.BootID || p.ID().Job != o.Job:
		err = fmt.Errorf("it is for %v in another boot", p.ID())
	default:
		return p, nil
	}
	return nil, &api.Fault{Code: api.CodeBadOrder, Text: "the order's certificate for the swarm cannot be used", Err: err}
}

// file fetches one file of the image, with repetitions while the server is
// away for a moment.
func (s *session) file(ctx context.Context, name string, limit int64) ([]byte, error) {
	for n := 0; ; n++ {
		raw, err := s.c.File(ctx, name, limit)
		if err == nil || !contact.Temporary(err) || n >= 6 {
			return raw, err
		}
		s.detail("the server does not answer, trying again")
		if err := sleep(ctx, contact.Backoff(n)); err != nil {
			return nil, err
		}
	}
}

// check scans the disk through a descriptor that cannot write.
func (s *session) check(ctx context.Context, b *bundle.Bundle, d api.Disk) (plan *writer.Plan, err error) {
	s.setState(api.StateChecking, "")
	r, err := s.cfg.Disks.Reader(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	found, err := scan.Run(ctx, r, b, s.phase)
	if err != nil {
		return nil, err
	}
	plan = writer.NewPlan(b, d.Bytes, found, d.Foreign...)
	s.mu.Lock()
	s.plan = plan
	s.mu.Unlock()
	s.cfg.Log.Info("disk checked", "keep", plan.Counts.CellsKeep, "write", plan.Counts.CellsWrite, "zero", plan.Counts.CellsZero, "skipped", found.Skipped)
	return plan, nil
}

// clear asks for the commence: politely again while the answer is not_now or
// the server is away, until the order runs out. stale_fence and every other
// refusal send the machine to its own disk, untouched.
func (s *session) clear(ctx context.Context, o order.Order, v *order.Verified, plan *writer.Plan, d api.Disk) (order.Cleared, error) {
	k := plan.Counts
	digest := order.PlanDigest(o.ID, target.IDOf(d), k.CellsWrite, k.CellsKeep, k.CellsZero, k.BytesWrite)
	req := api.CommenceRequest{OrderID: o.ID, PlanDigest: digest, Plan: k, Disk: d}
	for n := 0; ; n++ {
		env, err := s.c.Commence(ctx, req)
		if err == nil {
			return v.Clear(env, digest, bootenv.Uptime())
		}
		wait := contact.Backoff(n)
		var p *api.Problem
		switch {
		case errors.As(err, &p) && p.Code == api.CodeNotNow:
			s.detail(first(p.Detail, "the server asks to wait"))
			wait, n = contact.Backoff(2), -1
		case contact.Temporary(err):
			s.detail("the server does not answer, trying again")
		default:
			return order.Cleared{}, s.refused(err)
		}
		if bootenv.Uptime()+wait > v.Deadline() {
			return order.Cleared{}, &localError{fmt.Sprintf("the order ran out before the server let the work begin (%v)", err)}
		}
		if err := sleep(ctx, wait); err != nil {
			return order.Cleared{}, err
		}
	}
}

// commit notes that the point of no return is passed: from here on hints to
// stop are ignored, and the screen says so.
func (s *session) commit(c order.Cleared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commence, s.fence = true, c.Fence()
}

// settle is how long a Dropped piece may take to come again, at most.
const settle = 10 * time.Minute
