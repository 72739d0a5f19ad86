package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/images/library"
	"labswarm/internal/units"
)

func newImageScrub(e *env) *cobra.Command {
	rate, now := "0", false
	cmd := &cobra.Command{
		Use: "scrub [NAME[/VERSION]]", Short: "read images again, repair them, and keep damaged ones from being deployed",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exact(1)(cmd, args)
			}
			return nil
		},
		Long: `Scrub reads every cell and compressed cell from the disk and compares it with the signed
manifest: of one version, of all of a name, or of all images. It waits while a job runs.
A version with a damaged cell goes into quarantine: no new job may use it. It is repaired
from the other form where that is still right; else the server fetches the cell back from a
relay or a PC of a running job that holds it. When every cell is right the version may be
deployed again. ` + "`labswarm serve`" + ` does the same by night.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			bps, err := units.ParseSize(strings.TrimSuffix(rate, "/s"))
			if err != nil {
				return usage(fmt.Errorf("--rate: %w", err))
			}
			arg := ""
			if len(args) == 1 {
				arg = args[0]
			}
			return e.scrub(cmd.Context(), arg, bps, now)
		}}
	cmd.Flags().StringVar(&rate, "rate", rate, "bytes a second at most, for example 100MB; 0 = no limit")
	cmd.Flags().BoolVar(&now, "now", false, "also while a job runs: it reads the disk that the job reads from")
	return cmd
}

// scrubbed is one version of `image scrub --json`.
type scrubbed struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	OK       bool     `json:"ok"`
	Found    []string `json:"found"` // damaged cells before the repair
	Bad      []string `json:"bad"`   // and after it
	Cells    int      `json:"cells_repaired"`
	Frames   int      `json:"frames_repaired"`
	Fetched  int      `json:"cells_fetched"`
	From     []string `json:"fetched_from"` // relays and PCs
	FramesOK bool     `json:"frames_ok"`
	Outcome  string   `json:"outcome"`
}

func (e *env) scrub(ctx context.Context, arg string, bps int64, now bool) error {
	if lib, err := e.browse(); err != nil {
		return err
	} else if list, err := wanted(lib, arg); err != nil || len(list) == 0 {
		return err // nothing is made to look at nothing
	}
	lib, err := e.library()
	if err != nil {
		return err
	}
	list, err := wanted(lib, arg)
	if err != nil {
		return err
	}
	out, bad := []scrubbed{}, 0
	for _, v := range list {
		if v.Err != "" {
			e.hint("labswarm: image %s/%s cannot be opened: %s", v.Name, v.Version, v.Err)
			out, bad = append(out, scrubbed{Name: v.Name, Version: v.Version, Found: []string{}, Bad: []string{v.Err}, From: []string{}, Outcome: v.Err}), bad+1
			continue
		}
		s, err := e.scrubOne(ctx, lib, v, bps, now)
		if err != nil {
			return err
		}
		if !s.OK {
			bad++
		}
		out = append(out, s)
		if !e.json {
			if err := e.printf("%s/%s: %s\n", s.Name, s.Version, s.Outcome); err != nil {
				return err
			}
		}
	}
	if e.json {
		if err := e.printJSON(out); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("scrub: %d of %d versions are damaged and must not be deployed", bad, len(list))
	}
	return nil
}

// wanted lists the versions that arg names; "" = all.
func wanted(lib *library.Library, arg string) ([]library.VersionInfo, error) {
	all, err := lib.List()
	if err != nil || arg == "" {
		return all, err
	}
	name, version, one := strings.Cut(arg, "/")
	var out []library.VersionInfo
	for _, v := range all {
		if v.Name == name && (!one || v.Version == version) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("scrub %s: %w; `labswarm image ls` shows what there is", arg, library.ErrNotFound)
	}
	return out, nil
}

func (e *env) scrubOne(ctx context.Context, lib *library.Library, v library.VersionInfo, bps int64, now bool) (scrubbed, error) {
	p := e.progress()
	o := library.ScrubOptions{
		Rate: bps, Pause: e.whileJobs(), Progress: func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) },
		Damaged: func(ctx context.Context, r library.Result) error {
			return e.tellDamage(ctx, lib, v.Name, v.Version, v.Digest, r)
		},
		Fetch: e.fetchCells(lib, v.Digest),
	}
	if now {
		o.Pause = nil
	}
	res, err := lib.Scrub(ctx, v.Name, v.Version, o)
	p.end()
	if err != nil {
		return scrubbed{}, err
	}
	s := scrubbed{Name: v.Name, Version: v.Version, OK: res.Result.OK(), Found: []string{}, Bad: []string{}, Cells: res.Cells, Frames: res.Frames,
		Fetched: res.Fetched.Cells, From: append([]string{}, res.Fetched.From...), FramesOK: res.Result.FramesOK(), Outcome: res.Text()}
	for _, b := range res.Found.Bad {
		s.Found = append(s.Found, b.Error())
	}
	for _, b := range res.Result.Bad {
		s.Bad = append(s.Bad, b.Error())
	}
	return s, e.tellOutcome(ctx, lib, v.Name, v.Version, v.Digest, res)
}

// whileJobs returns a function that waits while the server has a job that has not ended.
func (e *env) whileJobs() func(context.Context) error {
	var next time.Time
	said := false
	return func(ctx context.Context) error {
		if time.Now().Before(next) {
			return nil
		}
		for {
			c := e.client()
			info, err := c.Server(ctx)
			c.Close()
			if err != nil || info.LiveJobs == 0 { // no server, no jobs
				next = time.Now().Add(2 * time.Second)
				return ctx.Err()
			}
			if !said {
				e.hint("labswarm: a job runs: the scrub waits until it has ended")
				said = true
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Second):
			}
		}
	}
}
