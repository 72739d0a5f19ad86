// Package finalise is what happens to a disk between its proof and its
// partition table: the last filesystem grows to its partition, and the system
// gets the PC's own identity (images.md, sections 6 to 9).
//
// Power lost in here leaves a disk without a table: the next boot scans it,
// fetches the cells that were changed, and finalises again. Called by package
// deploy.
package finalise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/fsmap/part"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/personalise"
	"labswarm/initramfs-agent/volume"
	"labswarm/internal/units"
)

// Disk is the target. *disk.Writable is one.
type Disk interface {
	Share(parts []disk.Span) error
	Device(n int) (string, error)
	Unshare() error

	// Of an exclusively held disk; offsets and buffers as O_DIRECT takes them.
	At() (*disk.At, error)
	ReadAt(buf []byte, off int64) error
	WriteCell(buf []byte, off int64) error
	Flush() error
}

// Options of one run.
type Options struct {
	Policy string // order.PersonaliseRequire, ...
	Host   personalise.Host
	Hooks  []personalise.Hook        // of the image
	Load   func(module string) error // of kernel modules; nil = the kernel finds them itself
	Log    *slog.Logger
	Say    func(what string) // what takes a while, for people
}

// Outcome is what the server is told beside the proof.
type Outcome struct {
	Warnings []string // for people
	HostKeys []string // public SSH host keys, "type base64"
}

// run is one finalising.
type run struct {
	Options
	d   Disk
	out Outcome
}

// job is what there is to do on one disk.
type job struct {
	grow  *partition  // nil = nothing
	roots []partition // filesystems that may hold a Linux root
	esp   *partition  // where a Windows image's host file goes
	skip  []string    // what cannot be personalised, for people

	windows []partition // NTFS volumes that may hold a Windows
}

// partition is one partition.
type partition struct {
	span   disk.Span
	fs     string // as the manifest names it
	driver string // as the kernel does
}

func (t partition) name() string { return fmt.Sprintf("partition %d (%s)", t.span.N, t.fs) }

// plan says what there is to do. parts are the manifest's partitions with their
// places on this disk.
func plan(m *manifest.Manifest, parts []manifest.Part, policy string) job {
	var j job
	var esp *partition
	for i, p := range parts {
		t := partition{disk.Span{N: p.N, Start: p.Start, Size: p.Size}, p.FS, volume.Driver(p.FS)}
		if p.Grow && volume.CanGrow(t.driver) && i < len(m.Parts) && p.Size > m.Parts[i].Size {
			j.grow = &t
		}
		switch {
		case p.OS == "linux" && volume.CanHoldLinux(t.driver):
			j.roots = append(j.roots, t)
		case p.OS == "windows":
			j.windows = append(j.windows, t)
		case (p.Type == part.TypeESP || p.Type == "ef") && t.driver == "vfat" && esp == nil:
			esp = &t
		case p.FS == "luks" || p.FS == "lvm" || p.FS == "bitlocker":
			j.skip = append(j.skip, fmt.Sprintf("what lies in %s is not personalised: this release does not open %s", t.name(), strings.ToUpper(p.FS)))
		}
	}
	if policy == order.PersonaliseOff {
		j.roots, j.skip, j.windows = nil, nil, nil
		return j
	}
	if len(j.windows) > 0 {
		j.esp = esp
	}
	return j
}

// Run does what the manifest and the policy ask for on a disk whose cells are
// proven. It fails with an *api.Fault: CodePersonalise when the policy requires
// what could not be done, else the disk's own trouble. A disk that needs nothing
// is not touched.
func Run(ctx context.Context, d Disk, m *manifest.Manifest, parts []manifest.Part, o Options) (out Outcome, err error) {
	j := plan(m, parts, o.Policy)
	r := &run{Options: o, d: d}
	for _, s := range j.skip {
		r.warn(s)
	}
	if err := r.left(j, m); err != nil {
		if o.Policy == order.PersonaliseRequire {
			return r.out, fault(err)
		}
		r.warn(err.Error())
	}
	if err := r.windows(j); err != nil {
		if o.Policy == order.PersonaliseRequire {
			return r.out, fault(err)
		}
		r.warn("not personalised: " + err.Error())
	}
	spans := j.spans()
	if len(spans) == 0 {
		return r.out, nil
	}
	if err := d.Share(spans); err != nil {
		err = errors.Join(err, d.Unshare())
		if j.must(o.Policy) {
			return r.out, fault(err)
		}
		r.warn("the kernel does not take the new partitions: " + err.Error())
		return r.out, nil
	}
	defer func() {
		if e := d.Unshare(); e != nil {
			err = errors.Join(err, &api.Fault{Code: api.CodeDiskWrite, Text: "the disk is still in use after its file systems were changed", Err: e})
		}
	}()
	if j.grow != nil {
		r.grow(*j.grow)
	}
	if err := ctx.Err(); err != nil {
		return r.out, err
	}
	if err := r.personalise(j); err != nil {
		if o.Policy == order.PersonaliseRequire {
			return r.out, fault(err)
		}
		r.warn("not personalised: " + err.Error())
	}
	return r.out, nil
}

// left says what the order or the image asks for and nothing on this disk, or the policy, allows.
func (r *run) left(j job, m *manifest.Manifest) error {
	linux := slices.ContainsFunc(m.Parts, func(p manifest.Part) bool { return p.OS == "linux" })
	switch {
	case r.Host.Network == nil:
	case r.Policy == order.PersonaliseOff:
		r.warn("the fixed address is left out: the job says --personalise=off")
	case !linux:
		r.warn("the fixed address is for Linux, this image has none: its system asks DHCP or keeps the image's address")
	}
	switch {
	case len(r.Hooks) == 0:
	case r.Policy == order.PersonaliseOff:
		r.warn(fmt.Sprintf("the image's %d hooks are left out: the job says --personalise=off", len(r.Hooks)))
	case len(j.roots) == 0:
		return fmt.Errorf("the image's %d hooks are left out: no Linux filesystem that can be mounted here", len(r.Hooks))
	}
	return nil
}

func fault(err error) error {
	return &api.Fault{Code: api.CodePersonalise, Err: err,
		Text: "the disk was read back and equals the image, but this PC's own name and keys could not be put on it; it has no partition table yet (job create --personalise=try goes on without them)"}
}

// must tells whether a failure counts: growing alone never fails a host.
func (j *job) must(policy string) bool {
	return policy == order.PersonaliseRequire && (len(j.roots) > 0 || j.esp != nil)
}

// spans are the partitions that are mounted, each once.
func (j *job) spans() []disk.Span {
	var out []disk.Span
	add := func(t partition) {
		if !slices.Contains(out, t.span) {
			out = append(out, t.span)
		}
	}
	for _, t := range j.roots {
		add(t)
	}
	for _, t := range []*partition{j.grow, j.esp} {
		if t != nil {
			add(*t)
		}
	}
	return out
}

func (r *run) warn(text string) {
	r.Log.Warn("finalise", "what", text)
	r.out.Warnings = append(r.out.Warnings, text)
}

// mount mounts a partition, with its driver loaded.
func (r *run) mount(t partition, readOnly bool) (*volume.Volume, error) {
	node, err := r.d.Device(t.span.N)
	if err != nil {
		return nil, err
	}
	loaded := r.load(t.driver)
	v, err := volume.Mount(node, t.driver, readOnly)
	if errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("%s: this boot kernel has no driver for %s: %w", t.name(), t.driver, errors.Join(err, loaded))
	}
	return v, err
}

// load loads what a driver needs. A module that is missing is no error here: it
// may be a part of the kernel.
func (r *run) load(driver string) error {
	if r.Load == nil {
		return nil
	}
	// Checksums are asked for by name, which a kernel without modprobe cannot answer.
	var names []string
	if driver == "vfat" {
		names = append(names, "nls_cp437", "nls_ascii")
	} else {
		names = append(names, "crc32c_generic", "crc32c_intel")
	}
	for _, n := range names {
		if err := r.Load(n); err != nil {
			r.Log.Debug("module", "err", err)
		}
	}
	return r.Load(driver)
}

// grow never fails: a filesystem that stays small is as good as the image's.
func (r *run) grow(t partition) {
	r.Say("growing " + t.name())
	v, err := r.mount(t, false)
	if err == nil {
		var before, after int64
		before, after, err = v.Grow(t.span.Size)
		if err = errors.Join(err, v.Close()); err == nil {
			r.Log.Info("file system grown", "partition", t.span.N, "fs", t.fs, "from", units.FormatBytes(before), "to", units.FormatBytes(after))
		}
	}
	if err != nil {
		r.warn(fmt.Sprintf("%s was not grown to its %s: %v", t.name(), units.FormatBytes(t.span.Size), err))
	}
}
