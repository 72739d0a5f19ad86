package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/internal/units"
)

// maxPlan bounds a plan file, in bytes.
const maxPlan = 32 << 20

// planJob is the dry run: it prints the plan, and keeps it for --plan.
func (e *env) planJob(cmd *cobra.Command, j api.JobCreate, file string) error {
	c := e.client()
	defer c.Close()
	plan, err := c.PlanJob(cmd.Context(), j)
	if err != nil {
		return err
	}
	if file != "" {
		raw, err := json.MarshalIndent(plan, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, append(raw, '\n'), 0o600); err != nil {
			return fmt.Errorf("keep the plan: %w", err)
		}
	}
	if e.json {
		return e.printJSON(plan)
	}
	if err := e.printPlan(plan); err != nil || file == "" {
		return err
	}
	e.hint("the plan is in %s: labswarm job create --plan %s --confirm %s", file, file, plan.ConfirmText)
	return nil
}

// readPlan takes the request from a plan file.
func readPlan(file string) (api.JobCreate, error) {
	st, err := os.Stat(file)
	if err != nil {
		return api.JobCreate{}, fmt.Errorf("read plan: %w", err)
	}
	if st.Size() > maxPlan {
		return api.JobCreate{}, usage(fmt.Errorf("read plan %s: %d bytes, no plan has that many", file, st.Size()))
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return api.JobCreate{}, fmt.Errorf("read plan: %w", err)
	}
	var p api.JobPlan
	if err := json.Unmarshal(raw, &p); err != nil || p.PlanDigest == "" {
		return api.JobCreate{}, usage(fmt.Errorf("read plan %s: this is no plan of `labswarm job create --dry-run -o FILE`", file))
	}
	j := p.Request
	j.PlanDigest, j.ConfirmHosts = p.PlanDigest, p.Erase
	return j, nil
}

// onlyWith refuses flags that contradict a plan, which says it all.
func onlyWith(cmd *cobra.Command) error {
	var bad []string
	for _, name := range []string{"image", "room", "hosts", "after", "personalise", "expires", "attempts", "dry-run", "disk", "replace-foreign", "output",
		"at", "until", "on-window-end", "max-overrun", "canary", "max-failures", "wake"} {
		if cmd.Flags().Changed(name) {
			bad = append(bad, "--"+name)
		}
	}
	if bad != nil {
		return usage(fmt.Errorf("--plan says all of the job: leave out %s, or make a new plan", strings.Join(bad, ", ")))
	}
	return nil
}

func (e *env) printPlan(p api.JobPlan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s, at most %s a host\n", p.Image, p.Version, units.FormatBytes(p.Bytes))
	for _, h := range p.Hosts {
		fmt.Fprintf(&b, "  %-16s %-7s %s %s\n", h.Host, h.Verdict, orDash(h.Disk), h.Reason)
		if detail := planDetail(h); detail != "" {
			fmt.Fprintf(&b, "  %-16s %-7s %s\n", "", "", detail)
		}
		for _, r := range h.Risk {
			fmt.Fprintf(&b, "  %-16s %-7s RISK: %s\n", "", "", r)
		}
	}
	if p.NotAfter.IsZero() {
		return e.printf("%s", b.String())
	}
	fmt.Fprintf(&b, "window %s to %s: nobody begins after that; who has begun may %s until %s at the latest\n", clock(p.NotBefore), clock(p.NotAfter), orWord(p.OnWindowEnd, "finish"),
		clock(p.NotAfter.Add(time.Duration(p.MaxOverrunS)*time.Second)))
	fmt.Fprintf(&b, "%d of %d fit before %s; about %s to %s once they are on\n", p.InWindow, p.Erase, clock(p.NotAfter), seconds(p.EtaMinS), seconds(p.EtaMaxS))
	fmt.Fprintf(&b, "the server sends about %s; its disk has %s free\n", units.FormatBytes(p.SeedBytes), units.FormatBytes(p.FreeBytes))
	for _, c := range p.Conflicts {
		fmt.Fprintf(&b, "CONFLICT: %s\n", c)
	}
	fmt.Fprintf(&b, "%d disks are erased; plan %.16s\n", p.Erase, p.PlanDigest)
	return e.printf("%s", b.String())
}

func seconds(n int64) string { return units.FormatDuration(time.Duration(n) * time.Second) }

// planDetail is what is known of a host, on one line.
func planDetail(h api.JobPlanHost) string {
	var words []string
	if h.Holds != "" {
		words = append(words, fmt.Sprintf("has %s: keeps about %d cells, fetches %d = %s", h.Holds, h.KeepCells, h.FetchCells, units.FormatBytes(h.FetchBytes)))
	}
	if h.Firmware != "" {
		fw := h.Firmware
		if h.SecureBoot {
			fw += " with Secure Boot"
		}
		words = append(words, fw)
	}
	if h.LinkMbps > 0 {
		words = append(words, fmt.Sprintf("%d Mb/s", h.LinkMbps))
	}
	if h.RAMBytes > 0 {
		words = append(words, units.FormatBytes(h.RAMBytes)+" RAM")
	}
	if !h.LastSeen.IsZero() {
		words = append(words, "seen "+clock(h.LastSeen))
	}
	if h.NeedsS > 0 {
		fit := "fits"
		if !h.InWindow {
			fit = "DOES NOT FIT into the window"
		}
		words = append(words, "about "+seconds(h.NeedsS)+", "+fit)
	}
	return strings.Join(words, ", ")
}

// stale adds the cure to an answer that says that a plan is not true any more.
func stale(err error, file string) error {
	var p *api.Problem
	if file != "" && errors.As(err, &p) && p.Code == api.CodePlanStale {
		e := *p
		e.Detail += " with `labswarm job create ... --dry-run -o " + file + "`"
		return &e
	}
	return err
}
