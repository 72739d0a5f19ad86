package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/images/manifest"
	"labswarm/images/survey"
	"labswarm/internal/units"
)

func newCapture(e *env) *cobra.Command {
	var r api.CaptureCreate
	var cell string
	var expires time.Duration
	var detach bool
	cmd := &cobra.Command{
		Use: "capture NAME --host HOST", Short: "make a new version of an image from a host's disk", Args: exact(1),
		Long: `Capture arms one host. When it boots from the network the next time, the agent reads
its disk and sends what the filesystems use to the server, which checks it, signs it
and makes a new version of the image. The disk is opened for reading only; nothing on
it is changed, and the host boots it again afterwards.

Everything that speaks against an image of the disk is listed at once, and nothing is
sent. A guard can be overridden by its name, which stays in the image for ever:
  dirty        a filesystem was not unmounted cleanly: shut the system down first
  hibernated   Windows sleeps (fast startup): powercfg /h off, then shutdown /s /t 0
  loader       no \EFI\BOOT\BOOTX64.EFI, and the disk starts by UEFI only
  smart        the disk says of itself that it fails (SATA, NVMe)
BitLocker, a hybrid MBR and a filesystem that is larger than its partition cannot be
overridden.

Capture waits until the image is there and prints its name. Ctrl-C cancels the
capture, and says so. With --detach it goes on by itself: labswarm job watch looks at
it, labswarm job cancel ends it.
Exit codes: 0 the image is there (a disk that equals the newest version makes no new
one), 1 it was refused, failed or cancelled, 11 the host is busy, 130 interrupted.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := manifest.CheckName(args[0]); err != nil {
				return usage(err)
			}
			if r.Host == "" {
				return usage(errors.New("image capture needs --host"))
			}
			for _, f := range r.Force {
				if !slices.Contains(survey.Guards(), f) {
					return usage(fmt.Errorf("--force=%s: there are %s, each named by itself", f, strings.Join(survey.Guards(), ", ")))
				}
			}
			if cell != "" {
				var err error
				if r.CellBytes, err = units.ParseSize(cell); err != nil {
					return usage(fmt.Errorf("--cell: %w", err))
				}
			}
			r.ExpiresInS = int64(expires / time.Second)
			return e.capture(cmd, args[0], r, detach)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Host, "host", "", "the host whose disk is read")
	f.StringArrayVar(&r.Force, "force", nil, "override one guard by its name; may be repeated; recorded in the image for ever")
	f.StringVar(&r.Base, "base", "", "`VERSION` of the image, or latest: cells that are like its own are not sent again")
	f.StringVar(&cell, "cell", "", "cell size, 256KiB, 1MiB, 2MiB or 4MiB; a new image only; default: 256KiB up to 4 GiB of used bytes, then 1MiB or more")
	f.StringVar(&r.After, "after", "reboot", "what the host does then: reboot or poweroff")
	f.DurationVar(&expires, "expires", 0, "how long the host stays armed; 0 = 4h")
	f.BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

func (e *env) capture(cmd *cobra.Command, image string, r api.CaptureCreate, detach bool) error {
	c := e.client()
	defer c.Close()
	job, err := c.Capture(cmd.Context(), image, r)
	if err != nil {
		return err
	}
	if !e.json || !detach {
		e.hint("job %d: capture %s of %s; the host is armed until %s: boot it from the network", job.ID, image, r.Host, job.NotAfter.Local().Format("Mon 15:04"))
	}
	if detach {
		if e.json {
			return e.printJSON(job)
		}
		return nil
	}
	w := &captureWatch{e: e, p: e.progress()}
	id := job.ID
	job, err = e.followOnly(cmd.Context(), c, id, w.see)
	w.p.end()
	if err != nil && cmd.Context().Err() != nil {
		return e.cancelCapture(cmd.Context(), c, id, r.Host)
	}
	if err != nil {
		return err
	}
	return e.captured(job)
}

// cancelTime is how long the server has to take a cancellation.
const cancelTime = 10 * time.Second

// cancelCapture is what Ctrl-C does: a host must not stay armed for a command that nobody waits for. It says what came of
// it.
func (e *env) cancelCapture(ctx context.Context, c *client.Client, id uint64, host string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer cancel()
	job, err := c.CancelJob(ctx, id)
	if err == nil {
		job, err = c.Job(ctx, id)
	}
	switch {
	case err != nil:
		e.hint("interrupted, but capture job %d could not be cancelled (%v): host %s may still be read when it boots; `labswarm job cancel %d` cancels it", id, err, host, id)
	case len(job.Slots) == 1 && job.Slots[0].State.Good():
		return e.captured(job) // it was faster
	case len(job.Slots) == 1 && !job.Slots[0].State.Ended():
		e.hint("interrupted: capture job %d is being cancelled, host %s is %s; `labswarm job watch %d` shows its end", id, host, job.Slots[0].State, id)
	default:
		e.hint("interrupted: capture job %d is cancelled, host %s is not armed any more; no image was made, its disk was not changed", id, host)
	}
	return &codeError{code: ExitInterrupted}
}

// captureWatch shows how far a capture is.
type captureWatch struct {
	e     *env
	p     *progress
	shown string
}

func (w *captureWatch) see(j api.Job) (done bool, err error) {
	if len(j.Slots) != 1 {
		return false, fmt.Errorf("job %d has %d hosts; a capture has one", j.ID, len(j.Slots))
	}
	s := j.Slots[0]
	if now := fmt.Sprintf("%s %d %s", s.State, s.Attempt, s.Error); now != w.shown && !w.e.quiet {
		w.shown = now
		w.p.end()
		if !s.State.Ended() {
			w.e.hint("%s  %s", time.Now().Format(time.TimeOnly), slotLine(s))
		}
	}
	if s.State == api.StateCapturing && j.BytesShipped > 0 {
		w.p.update("capture", int64(s.Percent/100*float64(j.BytesShipped)), j.BytesShipped, s.RateBps)
	}
	return s.State.Ended(), nil
}

// captured says how a capture ended, and gives the exit code.
func (e *env) captured(j api.Job) error {
	s := j.Slots[0]
	if e.json {
		if err := e.printJSON(j); err != nil {
			return err
		}
		if s.State.Good() {
			return nil
		}
		return &codeError{code: ExitFailed}
	}
	if !s.State.Good() {
		return fmt.Errorf("capture %s of %s: %s", j.Image, s.Host, captureEnd(s))
	}
	return e.printf("%s/%s: %d cells of %s to ship (%s)\n", j.Image, j.Version, j.Cells, units.FormatBytes(j.CellBytes), units.FormatBytes(j.BytesShipped))
}

// captureEnd is why there is no image.
func captureEnd(s api.Slot) string {
	text := s.Error
	if text == "" {
		text = strings.ToLower(string(s.State))
	}
	return text + "; no image was made, the host's disk was not changed"
}

// captureReport is the report of a job that captures.
func (e *env) captureReport(j api.Job) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Report job %d  %s  %s\n", j.ID, imageOf(j), strings.ToUpper(orWord(j.Result, "live")))
	for _, s := range j.Slots {
		fmt.Fprintf(&b, "  %s\n", slotLine(s))
		if s.State.Ended() && !s.State.Good() {
			fmt.Fprintf(&b, "  %s\n", captureEnd(s))
		}
	}
	if j.Version != "" {
		fmt.Fprintf(&b, "image %s in %d cells\n", units.FormatBytes(j.BytesShipped), j.Cells)
	}
	return e.printf("%s", b.String())
}

// imageOf is what a job deploys or makes.
func imageOf(j api.Job) string {
	switch {
	case j.Kind == api.KindCapture && j.Version == "":
		return "capture of " + j.Image
	case j.Kind == api.KindCapture:
		return "capture of " + j.Image + "/" + j.Version
	}
	return j.Image + "/" + j.Version
}
