package newjob

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/internal/units"
	"labswarm/tui/component"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/screen/job"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// drawPlan shows the dry run: what it comes to, then host by host.
func (st State) drawPlan(c *component.Canvas, in screen.In) {
	p, ok := in.Data.(api.JobPlan)
	if !ok {
		if in.Cause == "" {
			c.End().Line(theme.Dim, " asking the server what would happen ...")
		}
		return
	}
	for _, l := range summary(&p, in.Now) {
		c.Line(theme.Text, " "+l)
	}
	for _, conflict := range p.Conflicts {
		c.Line(theme.Bad, " CONFLICT: "+snapshot.Clean(conflict))
	}
	c.Line(theme.Bad, fmt.Sprintf(" WILL ERASE the whole disk of %d hosts.", p.Erase))
	st.plan.Draw(c, planTable(in), c.Rows()-1)
}

func summary(p *api.JobPlan, now time.Time) []string {
	span := func(s int64) string { return units.FormatDuration(time.Duration(s) * time.Second) }
	return []string{
		fmt.Sprintf("window %s to %s; %d of %d hosts fit into it", component.Clock(p.NotBefore, now), component.Clock(p.NotAfter, now), p.InWindow, p.Erase),
		fmt.Sprintf("estimate %s to %s once they are on; at most %s a host, the server sends about %s", span(p.EtaMinS), span(p.EtaMaxS), units.FormatBytes(p.Bytes), units.FormatBytes(p.SeedBytes)),
	}
}

// ask opens the question before disks are erased.
func (st State) ask(in screen.In) screen.Effect {
	p, ok := in.Data.(api.JobPlan)
	switch {
	case !ok:
		return screen.Effect{Note: "the plan is not there yet"}
	case p.Erase == 0:
		return screen.Effect{Note: "no host can take part; esc goes back"}
	}
	req := p.Request
	req.DryRun = false
	req.PlanDigest, req.ConfirmHosts = p.PlanDigest, p.Erase
	what, want := "the room's name", p.ConfirmText
	if req.Room == "" {
		what = "the image's name"
	}
	if len(p.Protected) > 0 { // each of them has to be typed, too
		req.ConfirmProtected = p.Protected
		what += " and the protected hosts"
		want += " " + strings.Join(p.Protected, " ")
	}
	return screen.Effect{Open: confirm.State{
		Title: fmt.Sprintf("ERASE %d DISKS: %s/%s for %s", p.Erase, p.Image, p.Version, st.target()),
		Facts: facts(&p), Want: want, What: what,
		Action: screen.Action{
			Doing: "make the job",
			Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
				req.Confirm = p.ConfirmText // typed, letter by letter: confirm.State saw to that
				j, err := c.CreateJob(ctx, req)
				if err != nil {
					return screen.Done{}, err
				}
				return screen.Done{Said: fmt.Sprintf("job %d is made; its hosts are reimaged when they boot from the network", j.ID), Back: true, Then: job.State{ID: j.ID}}, nil
			},
		},
	}}
}

// facts are what a person should see before typing the name: which disks, what
// is doubtful.
func facts(p *api.JobPlan) []string {
	models := map[string]int{}
	var risks, out []string
	left := 0
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if h.Verdict != api.VerdictGo && h.Verdict != api.VerdictWake {
			left++
			continue
		}
		name := "disk not seen yet"
		if h.DiskModel != "" || h.DiskBytes > 0 {
			name = strings.TrimSpace(h.DiskModel + " " + units.FormatBytes(h.DiskBytes))
		}
		models[name]++
		for _, r := range h.Risk {
			risks = append(risks, h.Host+": "+r)
		}
	}
	names := make([]string, 0, len(models))
	for m := range models {
		names = append(names, m)
	}
	slices.SortFunc(names, func(a, b string) int {
		if models[a] != models[b] {
			return models[b] - models[a]
		}
		return strings.Compare(a, b)
	})
	for i, m := range names {
		names[i] = fmt.Sprintf("%s (%d)", snapshot.Clean(m), models[m])
	}
	out = append(out, fmt.Sprintf("%s/%s replaces everything on %d disks: %s.", p.Image, p.Version, p.Erase, strings.Join(names, ", ")))
	if left > 0 {
		out = append(out, fmt.Sprintf("%d hosts are left out.", left))
	}
	const most = 3
	for i, r := range risks {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more: see the plan", len(risks)-most))
			break
		}
		out = append(out, "RISK  "+snapshot.Clean(r))
	}
	return out
}

// save writes the plan beside the console, for `labswarm job create --plan`.
func (st State) save(in screen.In) screen.Effect {
	p, ok := in.Data.(api.JobPlan)
	if !ok {
		return screen.Effect{Note: "the plan is not there yet"}
	}
	name := fmt.Sprintf("plan-%s-%s.json", screen.FileName(st.target()), in.Now.Format("20060102-150405"))
	return screen.Effect{Do: &screen.Action{
		Doing: "save the plan as " + name,
		Do: func(context.Context, *client.Client) (screen.Done, error) {
			raw, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				return screen.Done{}, fmt.Errorf("encode plan: %w", err)
			}
			if err := screen.Save(name, append(raw, '\n'), 0o600); err != nil {
				return screen.Done{}, err
			}
			return screen.Done{Said: "saved: labswarm job create --plan " + name + " --confirm " + p.ConfirmText}, nil
		},
	}}
}
