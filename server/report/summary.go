package report

import (
	"fmt"

	"labswarm/api"
	"labswarm/internal/units"
)

// Summary is the report for people, as the console shows it: the same verdict, classes and figures as in Markdown and
// HTML. Texts hold printable characters only.
func (r *Report) Summary() api.ReportSummary {
	f := r.Figures()
	s := api.ReportSummary{Job: r.Job, Kind: r.Kind, Room: Plain(r.Room), Image: Plain(r.Image.Name + "/" + r.Image.Version), Verdict: r.Verdict(),
		Created: r.Created, DurationS: r.DurationS, Hosts: f.Hosts, Ready: f.Ready, Groups: []api.ReportGroup{}, Warnings: []api.ReportHost{}, Figures: []api.ReportFigure{}}
	for _, c := range []Class{NotUsable, OldImage, Busy, Ready} {
		g := api.ReportGroup{Name: c.String()}
		for _, h := range r.Of(c) {
			text := h.Why()
			if c == Ready {
				text = h.moved()
			}
			g.Hosts = append(g.Hosts, api.ReportHost{Host: Plain(h.Name), Text: text})
		}
		if len(g.Hosts) > 0 {
			s.Groups = append(s.Groups, g)
		}
	}
	for i := range r.Hosts {
		for _, w := range r.Hosts[i].Warnings {
			s.Warnings = append(s.Warnings, api.ReportHost{Host: Plain(r.Hosts[i].Name), Text: Plain(w)})
		}
	}
	for _, l := range r.figureLines() {
		s.Figures = append(s.Figures, api.ReportFigure{Name: l[0], Text: l[1]})
	}
	if c := r.Cells; c.Total > 0 {
		s.Figures = append(s.Figures, api.ReportFigure{Name: "cells", Text: fmt.Sprintf("%d of %d kept, %d fetched (%.1f %%)", c.Kept, c.Total, c.Fetched, c.FetchedPercent)})
	}
	return s
}

// moved is what a host with the new image had to fetch.
func (h *Host) moved() string {
	text := fmt.Sprintf("%d cells kept, %d fetched; %s server, %s PCs", h.CellsKept, h.CellsWritten, units.FormatBytes(h.BytesFromSeed), units.FormatBytes(h.BytesFromPeers))
	switch {
	case h.LocalOS:
		text += "; booted"
	case h.State == api.StateConfirmed:
		text += "; restarted"
	default:
		text += "; not seen again"
	}
	if h.Attempts > 1 {
		text += fmt.Sprintf("; attempt %d", h.Attempts)
	}
	return text
}
