package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
)

// jobSteering are the commands that change a job while it lives.
func jobSteering(e *env) []*cobra.Command {
	return []*cobra.Command{
		e.onJob("pause", "hosts that have not begun to write wait; the others finish", (*client.Client).PauseJob),
		e.onJob("resume", "end a pause; failures up to now are accepted", (*client.Client).ResumeJob),
		newJobExtend(e),
		e.onHosts("retry", "give hosts that failed, were skipped or never came another chance in this job", api.ActRetry),
		e.onHosts("skip", "leave hosts out; only before they begin to write", api.ActSkip, "exclude"),
		e.onHosts("hold", "keep hosts from going on until `job release`; who writes finishes", api.ActHold),
		e.onHosts("release", "let held hosts go on", api.ActRelease),
	}
}

func (e *env) onJob(use, short string, do func(*client.Client, context.Context, uint64) (api.Job, error)) *cobra.Command {
	return &cobra.Command{Use: use + " JOB", Short: short, Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		id, err := jobID(cmd, c, args)
		if err != nil {
			return err
		}
		j, err := do(c, cmd.Context(), id)
		if err != nil {
			return err
		}
		return e.printSteered(j)
	}}
}

func (e *env) printSteered(j api.Job) error {
	if e.json {
		return e.printJSON(j)
	}
	return e.printf("job %d: %s; %s\n", j.ID, windowLine(j), counts(j))
}

// windowLine says when a job works and what it waits for.
func windowLine(j api.Job) string {
	line := "window until " + clock(j.NotAfter)
	if !j.NotBefore.IsZero() {
		line = "window " + clock(j.NotBefore) + " to " + clock(j.NotAfter)
	}
	if !j.Paused.IsZero() {
		line += ", PAUSED by " + j.PausedBy
	} else if j.Waiting != "" {
		line += ", " + j.Waiting
	}
	return line
}

func newJobExtend(e *env) *cobra.Command {
	var until, by string
	cmd := &cobra.Command{Use: "extend JOB (--until TIME | --by DURATION)", Short: "give a job more time", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		if (until == "") == (by == "") {
			return usage(fmt.Errorf("job extend needs either --until or --by"))
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
		end, err := units.ParseWhen(until, time.Now())
		if by != "" {
			var d time.Duration
			if d, err = time.ParseDuration(by); err == nil && d <= 0 {
				err = fmt.Errorf("%q: a duration must be more than nothing", by)
			}
			end = j.NotAfter.Add(d)
		}
		if err != nil {
			return usage(err)
		}
		if j, err = c.ExtendJob(cmd.Context(), id, end); err != nil {
			return err
		}
		return e.printSteered(j)
	}}
	cmd.Flags().StringVar(&until, "until", "", "the window's new end: `TIME` like 07:30, or a duration from now")
	cmd.Flags().StringVar(&by, "by", "", "so much later than the present end: `DURATION` like 45m")
	return cmd
}

// onHosts does something to hosts of a job, one after the other.
func (e *env) onHosts(use, short, act string, aliases ...string) *cobra.Command {
	return &cobra.Command{Use: use + " JOB HOST...", Short: short, Aliases: aliases, Args: func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return usage(fmt.Errorf("%s needs a job's number and names of hosts", cmd.CommandPath()))
		}
		return nil
	}, RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		id, err := jobID(cmd, c, args[:1])
		if err != nil {
			return err
		}
		var j api.Job
		for _, h := range args[1:] {
			if j, err = c.ActOnHost(cmd.Context(), id, h, act); err != nil {
				return err
			}
		}
		return e.printSteered(j)
	}}
}
