package finalise

import (
	"errors"
	"fmt"

	"labswarm/initramfs-agent/personalise"
	"labswarm/initramfs-agent/volume"
)

// subvolumes are where a Btrfs root may lie when it is not the default
// subvolume: top, Ubuntu, Debian, Fedora.
var subvolumes = []string{".", "@", "@rootfs", "root"}

// personalise changes each Linux root and the host file. Partitions of a Linux
// without a root (/home, /boot) are only looked at, read-only.
func (r *run) personalise(j job) error {
	found := false
	for _, t := range j.roots {
		r.Say("looking at " + t.name())
		dir, err := r.find(t)
		if err != nil {
			return err
		}
		if dir == "" {
			continue
		}
		found = true
		r.Say("personalising " + t.name())
		rules := func(root *volume.Tree) (*personalise.Plan, error) {
			p, err := personalise.Linux(root, r.Host, personalise.NewKey)
			if err != nil {
				return nil, err
			}
			if err := personalise.Network(p, root, r.Host); err != nil {
				return nil, err
			}
			return p, personalise.Hooks(p, root, r.Host, r.Hooks)
		}
		if err := r.change(t, dir, rules); err != nil {
			return fmt.Errorf("personalise %s: %w", t.name(), err)
		}
	}
	if !found && len(j.roots) > 0 && (len(r.Hooks) > 0 || r.Host.Network != nil) {
		return fmt.Errorf("no Linux system on this disk that could take %d hooks or a fixed address", len(r.Hooks))
	}
	if !found && len(j.roots) > 0 {
		r.Log.Info("no Linux system on this disk, nothing to personalise")
	}
	if j.esp == nil {
		return nil
	}
	rules := func(*volume.Tree) (*personalise.Plan, error) { return personalise.HostFile(r.Host) }
	if err := r.change(*j.esp, ".", rules); err != nil {
		return fmt.Errorf("write labswarm\\host.json to %s: %w", j.esp.name(), err)
	}
	return nil
}

// within mounts a partition, opens a folder of it, and closes both again.
func (r *run) within(t partition, dir string, readOnly bool, do func(*volume.Tree) error) (err error) {
	v, err := r.mount(t, readOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	root, err := v.Root(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return do(root)
}

// find returns the folder of a filesystem that is a system's root, "" for none.
func (r *run) find(t partition) (dir string, err error) {
	dirs := subvolumes[:1]
	if t.driver == "btrfs" {
		dirs = subvolumes
	}
	err = r.within(t, ".", true, func(top *volume.Tree) error {
		for _, d := range dirs {
			if k, _, err := top.Lstat(d); err != nil || k != volume.Dir {
				continue
			}
			sub, err := top.Sub(d)
			if err != nil {
				return err
			}
			ok, err := personalise.IsRoot(sub)
			if err := errors.Join(err, sub.Close()); err != nil {
				return err
			}
			if ok {
				dir = d
				return nil
			}
		}
		return nil
	})
	return dir, err
}

// change makes a plan, carries it out, and compares after mounting anew: what
// the second mount reads has been on the medium.
func (r *run) change(t partition, dir string, rules func(*volume.Tree) (*personalise.Plan, error)) error {
	var p *personalise.Plan
	err := r.within(t, dir, false, func(root *volume.Tree) (err error) {
		if p, err = rules(root); err != nil {
			return err
		}
		return personalise.Apply(root, p)
	})
	if err != nil {
		return err
	}
	err = r.within(t, dir, true, func(root *volume.Tree) error { return personalise.Verify(root, p) })
	if err != nil {
		return err
	}
	for _, w := range p.Warnings {
		r.warn(w)
	}
	r.out.HostKeys = append(r.out.HostKeys, p.HostKeys...)
	r.Log.Info("personalised", "partition", t.span.N, "changes", len(p.Changes), "host", r.Host.Name)
	return nil
}
