package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
)

func newJob(e *env) *cobra.Command {
	cmd := group("job", "deployments", newJobCreate(e), newJobLs(e), newJobShow(e), newJobWatch(e), newJobCancel(e), newJobReport(e))
	cmd.AddCommand(jobSteering(e)...)
	return cmd
}

func newJobCreate(e *env) *cobra.Command {
	var j api.JobCreate
	var hosts, output, planFile string
	var expires time.Duration
	var detach bool
	var w windowFlags
	cmd := &cobra.Command{
		Use: "create --image NAME (--room ROOM | --hosts A,B)", Short: "deploy an image", Args: exact(0),
		Long: `Create plans the deployment, asks for the room's name (with --hosts: the image's
name), arms the hosts and follows the job. A host that boots from the network while
it is armed gets the agent; ERASES the whole disk of every host named.

Hosts begin only inside the window: from --at (now) until --until (4 hours later). Who
has begun may finish afterwards (--max-overrun). --dry-run -o FILE keeps the plan;
--plan FILE --confirm NAME carries it out if nothing it rests on has changed.

Which disk of a PC: the only one that fits, within the host's own disk rule
(labswarm host set --help) and --disk, which must both allow it. Old systems are replaced
as they are. A disk that is part of a RAID or a pool, or is encrypted, is refused unless
--replace-foreign names what may go: bitlocker, luks, lvm, zfs, mdraid (Linux RAID),
fwraid (RAID of the firmware), winpool (Windows dynamic disks, Storage Spaces), btrfspool.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if planFile != "" {
				if err := onlyWith(cmd); err != nil {
					return err
				}
				planned, err := readPlan(planFile)
				if err != nil {
					return err
				}
				planned.Confirm, planned.ConfirmProtected = j.Confirm, j.ConfirmProtected
				return stale(e.createJob(cmd, planned, detach), planFile)
			}
			if output != "" && !j.DryRun {
				return usage(errors.New("-o keeps a plan: it needs --dry-run"))
			}
			if j.Image == "" || (j.Room == "") == (hosts == "") {
				return usage(errors.New("job create needs --image and either --room or --hosts"))
			}
			if hosts != "" {
				for h := range strings.SplitSeq(hosts, ",") {
					j.Hosts = append(j.Hosts, strings.TrimSpace(h))
				}
			}
			if name, version, ok := strings.Cut(j.Image, "/"); ok {
				j.Image, j.Version = name, version
			}
			j.ExpiresInS = int64(expires / time.Second)
			var err error
			if j.JobPolicy, err = w.fill(time.Now()); err != nil {
				return err
			}
			if j.DryRun {
				return e.planJob(cmd, j, output)
			}
			return e.createJob(cmd, j, detach)
		},
	}
	f := cmd.Flags()
	f.StringVar(&j.Image, "image", "", "NAME or NAME/VERSION")
	f.StringVar(&j.Room, "room", "", "all hosts of a room")
	f.StringVar(&hosts, "hosts", "", "hosts by name, separated by commas")
	f.StringVar(&j.Confirm, "confirm", "", "the room's name (with --hosts: the image's name), instead of typing it")
	f.StringSliceVar(&j.ConfirmProtected, "confirm-protected", nil, "`HOSTS` of flag protect that are to be erased, each by its name")
	f.StringVar(&j.After, "after", "reboot", "reboot or poweroff")
	f.StringVar(&j.Personalise, "personalise", "require", "own name, SSH keys and machine id: require (a host without them fails), try, off")
	f.DurationVar(&expires, "expires", 0, "length of the window, in place of --until")
	f.IntVar(&j.MaxAttempts, "attempts", 0, "boots into the agent per host; 0 = 3")
	f.BoolVar(&j.DryRun, "dry-run", false, "show the plan, change nothing")
	f.StringVar(&j.Disk, "disk", "", "disk `RULE` for every host of the job, beside its own (host set --help)")
	f.StringSliceVar(&j.ReplaceForeign, "replace-foreign", nil, "`KINDS` of foreign data that may be overwritten, separated by commas")
	f.BoolVar(&detach, "detach", false, "do not follow the job")
	f.StringVarP(&output, "output", "o", "", "with --dry-run: keep the plan in `FILE`")
	f.StringVar(&planFile, "plan", "", "carry out the plan in `FILE`")
	w.add(cmd)
	return cmd
}

func (e *env) createJob(cmd *cobra.Command, j api.JobCreate, detach bool) error {
	c := e.client()
	defer c.Close()
	if j.Confirm == "" {
		if err := e.askConfirm(cmd, c, &j); err != nil {
			return err
		}
	}
	job, err := c.CreateJob(cmd.Context(), j)
	if err != nil {
		return err
	}
	if e.json {
		if detach || !isTerminalWriter(e.out) {
			return e.printJSON(job)
		}
		return e.watchJob(cmd.Context(), c, job.ID)
	}
	if err := e.printf("job %d: %s/%s to %d hosts; %s\n", job.ID, job.Image, job.Version, len(job.Slots), windowLine(job)); err != nil {
		return err
	}
	if detach || !isTerminalWriter(e.out) {
		return nil
	}
	return e.watchJob(cmd.Context(), c, job.ID)
}

// askConfirm shows the plan and wants the name typed. There is no yes-to-all.
func (e *env) askConfirm(cmd *cobra.Command, c *client.Client, j *api.JobCreate) error {
	what := j.Room
	if what == "" {
		what, _, _ = strings.Cut(j.Image, "/")
	}
	if !isTerminal(e.in) || e.json {
		return usage(fmt.Errorf("this erases disks: without a terminal repeat the name as --confirm %s", what))
	}
	plan, err := c.PlanJob(cmd.Context(), *j)
	if err != nil {
		return err
	}
	j.PlanDigest, j.ConfirmHosts = plan.PlanDigest, plan.Erase // what is agreed to is what was shown
	if err := e.printPlan(plan); err != nil {
		return err
	}
	if err := e.printf("\nThis ERASES the whole disk of these hosts. Type %q to go on: ", what); err != nil {
		return err
	}
	line, err := e.readLine(cmd.Context())
	if err != nil {
		return err
	}
	if j.Confirm = strings.TrimSpace(line); j.Confirm != what {
		return usage(fmt.Errorf("%q is not %q, nothing done", j.Confirm, what))
	}
	return nil
}

// readLine waits for a line or for Ctrl-C, which the program catches itself.
func (e *env) readLine(ctx context.Context) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // ends with the line, or with the program: a read from a terminal cannot be called off
		line, err := bufio.NewReader(e.in).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", &codeError{ExitInterrupted, errors.New("interrupted, nothing done")}
	case a := <-got:
		if a.err != nil {
			return "", usage(errors.New("nothing typed, nothing done"))
		}
		return a.line, nil
	}
}

func newJobLs(e *env) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "list the jobs, newest first", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		jobs, err := c.Jobs(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(jobs)
		}
		if len(jobs) == 0 {
			e.hint("no jobs yet: labswarm job create --image NAME --room ROOM")
		}
		for _, j := range jobs {
			result := j.Result
			if result == "" {
				result = fmt.Sprintf("live %.0f %%", j.Percent)
			}
			if err := e.printf("%-5d %-28s %-12s %-10s %s\n", j.ID, imageOf(j), orDash(j.Room), result, counts(j)); err != nil {
				return err
			}
		}
		return nil
	}}
}

// jobID reads a job number; "" means the newest job.
func jobID(cmd *cobra.Command, c *client.Client, args []string) (uint64, error) {
	if len(args) == 1 {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return 0, usage(fmt.Errorf("job %q: want its number, see `labswarm job ls`", args[0]))
		}
		return id, nil
	}
	jobs, err := c.Jobs(cmd.Context())
	if err != nil {
		return 0, err
	}
	if len(jobs) == 0 {
		return 0, errors.New("there is no job yet: labswarm job create --image NAME --room ROOM")
	}
	return jobs[0].ID, nil
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(fmt.Errorf("%s takes one job number at most", cmd.CommandPath()))
	}
	return nil
}

func newJobShow(e *env) *cobra.Command {
	var text string
	cmd := &cobra.Command{Use: "show [JOB] [--filter TERMS]", Short: "one job and its hosts; without a number the newest", Args: atMostOne, RunE: func(cmd *cobra.Command, args []string) error {
		want, err := parseFilter(text, slotColumns)
		if err != nil {
			return err
		}
		c := e.client()
		defer c.Close()
		id, err := jobID(cmd, c, args)
		if err != nil {
			return err
		}
		j, err := c.Job(cmd.Context(), id)
		if err != nil {
			return err
		}
		all := len(j.Slots)
		j.Slots = slices.DeleteFunc(j.Slots, func(s api.Slot) bool { return !want.Match(slotRow(s)) })
		if e.json {
			return e.printJSON(j)
		}
		if all > 0 && len(j.Slots) == 0 {
			e.hint("none of %d hosts matches the filter", all)
		}
		if err := e.printf("job %d  %s  room %s  %s\n%s\n%s\n%s\n", j.ID, imageOf(j), orDash(j.Room), orWord(j.Result, "live"), jobLine(j), windowLine(j), seedLine(j)); err != nil {
			return err
		}
		for _, s := range j.Slots {
			if err := e.printf("%s\n", slotLine(s)); err != nil {
				return err
			}
			if line := cellsLine(s, j.Cells); line != "" && j.Kind != api.KindCapture {
				if err := e.printf("    %s\n", line); err != nil {
					return err
				}
			}
			for _, t := range s.Timeline {
				if err := e.printf("    %s  %s\n", t.At.Local().Format(time.TimeOnly), t.Event); err != nil {
					return err
				}
			}
		}
		return nil
	}}
	filterFlag(cmd, &text, slotColumns)
	return cmd
}

func newJobCancel(e *env) *cobra.Command {
	return &cobra.Command{Use: "cancel JOB", Short: "hosts that have not begun boot their disk; the others finish", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		id, err := jobID(cmd, c, args)
		if err != nil {
			return err
		}
		j, err := c.CancelJob(cmd.Context(), id)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(j)
		}
		return e.printf("job %d is cancelled: %s\n", j.ID, counts(j))
	}}
}

func newJobReport(e *env) *cobra.Command {
	var file reportFile
	cmd := &cobra.Command{Use: "report [JOB]", Short: "the result of a job; --json for all of it", Args: atMostOne, RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		id, err := jobID(cmd, c, args)
		if err != nil {
			return err
		}
		if file.wanted() {
			return file.write(cmd, e, c, id)
		}
		if e.json {
			r, err := c.Report(cmd.Context(), id)
			if err != nil {
				return err
			}
			return e.printJSON(r)
		}
		j, err := c.Job(cmd.Context(), id)
		if err != nil {
			return err
		}
		return e.report(j)
	}}
	file.add(cmd)
	return cmd
}

// report prints verdict first, exceptions second, figures last.
func (e *env) report(j api.Job) error {
	var b strings.Builder
	if j.Kind == api.KindCapture {
		return e.captureReport(j)
	}
	fmt.Fprintf(&b, "Report job %d  %s/%s  %s  %s\n", j.ID, j.Image, j.Version, orDash(j.Room), strings.ToUpper(orWord(j.Result, "live")))
	good := 0
	for _, s := range j.Slots {
		for _, w := range s.Warnings {
			fmt.Fprintf(&b, "  %-24s %s: %s\n", "warning", s.Host, w)
		}
		if s.State.Good() {
			good++
			continue
		}
		usable := "NOT WRITTEN, old system"
		if s.PONR {
			usable = "NOT USABLE"
		}
		fmt.Fprintf(&b, "  %-24s %s\n", usable, slotLine(s))
	}
	fmt.Fprintf(&b, "verified by read-back %d of %d: %s\n", good, len(j.Slots), counts(j))
	for _, s := range j.Slots {
		if line := cellsLine(s, j.Cells); line != "" && s.State.Good() {
			fmt.Fprintf(&b, "  %-16s %s\n", s.Host, line)
		}
	}
	if line := cellsOfJob(j); line != "" {
		fmt.Fprintf(&b, "%s\n", line)
	}
	fmt.Fprintf(&b, "image %s in %d cells; %s\n", units.FormatBytes(j.BytesShipped), j.Cells, seedLine(j))
	return e.printf("%s", b.String())
}

// seedLine says what the server sent: on the wire, and which part of the image that
// was.
func seedLine(j api.Job) string {
	copies := 0.0
	if j.BytesShipped > 0 {
		copies = float64(j.SeedSent) / float64(j.BytesShipped)
	}
	return fmt.Sprintf("the server sent %s on the wire = %.2f copies (%s of image data)", units.FormatBytes(j.SeedWire), copies, units.FormatBytes(j.SeedSent))
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}
