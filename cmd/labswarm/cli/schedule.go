package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"labswarm/api"
)

func newSchedule(e *env) *cobra.Command {
	return group("schedule", "jobs that begin at local times, night after night",
		newScheduleAdd(e), e.schedLs("ls", "list the schedules"), e.schedShow(), e.schedAct("pause", "skip its runs until `schedule resume`"),
		e.schedAct("resume", "end a pause, and say that the server's clock is right"), e.schedRun(), e.schedLs("next", "the next five runs of every schedule"),
		e.schedHistory(), e.schedRm(), newCalendar(e))
}

func newScheduleAdd(e *env) *cobra.Command {
	var p api.SchedulePut
	var hosts, days string
	var w windowFlags
	cmd := &cobra.Command{
		Use: "add NAME --days mon,tue (--room ROOM | --hosts A,B) --image NAME --start 22:00 --end 06:00", Short: "add a schedule, or change the one of that name", Args: exact(1),
		Long: `Add saves a schedule: on each of its days the window begins at --start and ends at
--end, local time of --tz; an end that is not later than the start is of the next day.
When the clocks change, a start that comes twice is the first, one that is skipped is the
end of the gap; no night runs twice. Each run ERASES the disks of the hosts: the room's
name (with --hosts: the image's name) is confirmed here, once for all runs. A window that
has begun already is not used. An image without a version is the newest at that time.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			if p.Job.Image == "" || (p.Job.Room == "") == (hosts == "") || p.Start == "" || p.End == "" || (days == "") == (p.Date == "") {
				return usage(errors.New("schedule add needs --image, either --room or --hosts, --start, --end and either --days or --date"))
			}
			p.Weekdays, p.Job.Hosts = words(days), words(hosts)
			var err error
			if p.Job.JobPolicy, err = w.fillPolicy(); err != nil {
				return err
			}
			return e.saveSchedule(cmd, p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Job.Image, "image", "", "NAME (the newest version at that time) or NAME/VERSION")
	f.StringVar(&p.Job.Room, "room", "", "all hosts of a room")
	f.StringVar(&hosts, "hosts", "", "hosts by name, separated by commas")
	f.StringVar(&days, "days", "", "`DAYS` on which the window begins: mon,tue,wed,thu,fri,sat,sun")
	f.StringVar(&p.Date, "date", "", "once, on this `DATE` (2026-12-01), in place of --days")
	f.StringVar(&p.Start, "start", "", "local time, 22:00")
	f.StringVar(&p.End, "end", "", "local time, 06:00")
	f.StringVar(&p.TZ, "tz", "", "time zone like Europe/Berlin; default the server's")
	f.StringVar(&p.From, "from", "", "first `DATE`")
	f.StringVar(&p.To, "to", "", "last `DATE`")
	f.StringSliceVar(&p.Skip, "skip", nil, "`CALENDARS` with days on which it does not run")
	f.StringSliceVar(&p.Only, "only", nil, "`CALENDARS` with the only days on which it runs")
	f.StringVar(&p.CatchUp, "catch-up", "", "when the start was missed: late (inside the window, if there is time; default) or never")
	f.StringVar(&p.Confirm, "confirm", "", "the room's name (with --hosts: the image's name), instead of typing it")
	f.StringVar(&p.Job.After, "after", "reboot", "reboot or poweroff")
	f.StringVar(&p.Job.Personalise, "personalise", "require", "own name, SSH keys and machine id: require, try, off")
	f.IntVar(&p.Job.MaxAttempts, "attempts", 0, "boots into the agent per host; 0 = 3")
	f.StringVar(&p.Job.Disk, "disk", "", "disk `RULE` for every host, beside its own")
	f.StringSliceVar(&p.Job.ReplaceForeign, "replace-foreign", nil, "`KINDS` of foreign data that may be overwritten")
	f.BoolVar(&p.DryRun, "dry-run", false, "show its runs and what the first would do, store nothing")
	w.addPolicy(cmd)
	return cmd
}

func words(list string) []string {
	var out []string
	for w := range strings.SplitSeq(list, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

func (e *env) saveSchedule(cmd *cobra.Command, p api.SchedulePut) error {
	c := e.client()
	defer c.Close()
	if !p.DryRun && p.Confirm == "" {
		what := p.Job.Room
		if what == "" {
			what, _, _ = strings.Cut(p.Job.Image, "/")
		}
		if !isTerminal(e.in) || e.json {
			return usage(fmt.Errorf("each run erases disks: without a terminal repeat the name as --confirm %s", what))
		}
		dry := p
		dry.DryRun = true
		i, err := c.PutSchedule(cmd.Context(), dry)
		if err != nil {
			return err
		}
		if err := e.printSchedule(i); err != nil {
			return err
		}
		if err := e.printf("\nEach run ERASES the whole disk of these hosts. Type %q to go on: ", what); err != nil {
			return err
		}
		line, err := e.readLine(cmd.Context())
		if err != nil {
			return err
		}
		if p.Confirm = strings.TrimSpace(line); p.Confirm != what {
			return usage(fmt.Errorf("%q is not %q, nothing done", p.Confirm, what))
		}
	}
	i, err := c.PutSchedule(cmd.Context(), p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(i)
	}
	return e.printSchedule(i)
}

func (e *env) printSchedule(i api.ScheduleInfo) error {
	var b strings.Builder
	when := strings.Join(i.Weekdays, ",")
	if i.Date != "" {
		when = "once on " + i.Date
	}
	where := i.Job.Room
	if where == "" {
		where = strings.Join(i.Job.Hosts, ",")
	}
	fmt.Fprintf(&b, "%-16s %s  %s to %s %s  image %s to %s\n", i.Name, when, i.Start, i.End, i.TZ, i.Job.Image, where)
	if !i.Paused.IsZero() {
		fmt.Fprintf(&b, "  PAUSED by %s since %s\n", i.PausedBy, clock(i.Paused))
	}
	if i.Clock != "" {
		fmt.Fprintf(&b, "  NOTHING STARTS: %s. Put the clock right, then `labswarm schedule resume %s`\n", i.Clock, i.Name)
	}
	if i.Last != nil {
		fmt.Fprintf(&b, "  last  %s\n", runLine(*i.Last))
	}
	for _, n := range i.Next {
		what := "runs"
		if n.Skip != "" {
			what = "skipped: " + n.Skip
		}
		fmt.Fprintf(&b, "  next  %s  %s to %s  %s\n", n.Date, clock(n.Start), clock(n.End), what)
	}
	if len(i.Next) == 0 {
		b.WriteString("  no more runs\n")
	}
	if err := e.printf("%s", b.String()); err != nil || i.Plan == nil {
		return err
	}
	return e.printPlan(*i.Plan)
}

func runLine(r api.ScheduleRun) string {
	line := fmt.Sprintf("%s  %-8s", r.Date, r.Result)
	if r.Job != 0 {
		line += fmt.Sprintf(" job %d", r.Job)
	}
	if r.Reason != "" {
		line += "  " + r.Reason
	}
	return line
}

// schedLs prints all schedules.
func (e *env) schedLs(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		list, err := c.Schedules(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		if len(list) == 0 {
			e.hint("no schedules yet: labswarm schedule add NAME --days mon,tue --room ROOM --image NAME --start 22:00 --end 06:00")
		}
		for _, i := range list {
			if use == "ls" && len(i.Next) > 1 {
				i.Next = i.Next[:1]
			}
			if err := e.printSchedule(i); err != nil {
				return err
			}
		}
		return nil
	}}
}

func (e *env) schedShow() *cobra.Command {
	return &cobra.Command{Use: "show NAME", Short: "one schedule with its next five runs", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		i, err := c.Schedule(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(i)
		}
		return e.printSchedule(i)
	}}
}

func (e *env) schedAct(use, short string) *cobra.Command {
	return &cobra.Command{Use: use + " NAME", Short: short, Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		i, err := c.PauseSchedule(cmd.Context(), args[0], use == "pause")
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(i)
		}
		return e.printSchedule(i)
	}}
}

func (e *env) schedRun() *cobra.Command {
	var confirm string
	cmd := &cobra.Command{Use: "run NAME --confirm ROOM", Short: "make its job now, for as long as its window is; ERASES disks", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		if confirm == "" {
			return usage(errors.New("this erases disks: name the room (of a schedule for hosts: the image) as --confirm"))
		}
		c := e.client()
		defer c.Close()
		j, err := c.RunSchedule(cmd.Context(), args[0], confirm)
		if err != nil {
			return err
		}
		return e.printSteered(j)
	}}
	cmd.Flags().StringVar(&confirm, "confirm", "", "the room's name (of a schedule for hosts: the image's name)")
	return cmd
}

func (e *env) schedHistory() *cobra.Command {
	return &cobra.Command{Use: "history NAME", Short: "what became of its runs, the newest first", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		runs, err := c.ScheduleRuns(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(runs)
		}
		for _, r := range runs {
			if err := e.printf("%s\n", runLine(r)); err != nil {
				return err
			}
		}
		return nil
	}}
}

func (e *env) schedRm() *cobra.Command {
	return &cobra.Command{Use: "rm NAME", Short: "remove a schedule; jobs that run go on", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		return c.RemoveSchedule(cmd.Context(), args[0])
	}}
}

func newCalendar(e *env) *cobra.Command {
	ls := &cobra.Command{Use: "ls", Short: "list the calendars", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		list, err := c.Calendars(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		for _, k := range list {
			if err := e.printf("%-16s %s\n", k.Name, strings.Join(k.Days, " ")); err != nil {
				return err
			}
		}
		return nil
	}}
	set := &cobra.Command{Use: "set NAME DAY...", Short: "save a calendar: days like 2026-12-01 and ranges like 2026-12-24..2027-01-06", Args: func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return usage(fmt.Errorf("%s needs a name and days", cmd.CommandPath()))
		}
		return nil
	}, RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		k, err := c.PutCalendar(cmd.Context(), api.Calendar{Name: args[0], Days: args[1:]})
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(k)
		}
		return e.printf("%s: %d entries\n", k.Name, len(k.Days))
	}}
	rm := &cobra.Command{Use: "rm NAME", Short: "remove a calendar that no schedule needs", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		return c.RemoveCalendar(cmd.Context(), args[0])
	}}
	return group("calendar", "holidays: days on which schedules do not run, or the only ones", ls, set, rm)
}
