package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"labswarm/internal/units"
)

// Formats of Render.
var Formats = []string{"json", "csv", "md", "html"}

// Render writes a report in one of Formats. The same report gives the same bytes; times are UTC.
func Render(r Report, format string) ([]byte, error) {
	switch format {
	case "json":
		raw, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("write report: %w", err)
		}
		return append(raw, '\n'), nil
	case "csv":
		return renderCSV(&r)
	case "md":
		return renderMarkdown(&r), nil
	case "html":
		return renderHTML(&r)
	}
	return nil, fmt.Errorf("write report: format %q is not known, use %s", format, strings.Join(Formats, ", "))
}

// cell makes a text safe for a spreadsheet, which takes = + - @ at its begin for a formula.
func cell(s string) string {
	s = Plain(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}

// renderCSV writes a line per host. Columns are only ever added, at the end.
func renderCSV(r *Report) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"job", "room", "image", "version", "host", "mac", "firmware", "state", "outcome", "attempts", "verified", "booted",
		"bytes_from_server", "bytes_from_peers", "cells_written", "cells_kept", "code", "error"}}
	for i := range r.Hosts {
		h := &r.Hosts[i]
		rows = append(rows, []string{strconv.FormatUint(r.Job, 10), cell(r.Room), cell(r.Image.Name), cell(r.Image.Version), cell(h.Name), cell(h.MAC), cell(h.Firmware),
			cell(string(h.State)), h.Class().String(), strconv.Itoa(h.Attempts), strconv.FormatBool(h.Verified), strconv.FormatBool(h.LocalOS),
			strconv.FormatInt(h.BytesFromSeed, 10), strconv.FormatInt(h.BytesFromPeers, 10), strconv.Itoa(h.CellsWritten), strconv.Itoa(h.CellsKept), cell(h.Code), cell(h.Error)})
	}
	if err := w.WriteAll(rows); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return b.Bytes(), nil
}

// md makes a text safe inside a Markdown line or table: no markup, no HTML, no link.
func md(s string) string {
	var b strings.Builder
	// Many readers make links of these by themselves.
	for _, r := range strings.NewReplacer("://", "\x00//", "www.", "www\x01", "WWW.", "WWW\x01").Replace(Plain(s)) {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_[]|~", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == 0:
			b.WriteString("&#58;")
		case r == 1:
			b.WriteString("&#46;")
		case r == '@':
			b.WriteString("&#64;")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// when is a time for people.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" }

// span writes seconds as m:ss or h:mm:ss.
func span(s float64) string {
	n := int(s + 0.5)
	if n >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", n/3600, n/60%60, n%60)
	}
	return fmt.Sprintf("%d:%02d", n/60, n%60)
}

// figureLines are the last lines of Markdown and HTML, as name and value.
func (r *Report) figureLines() [][2]string {
	f := r.Figures()
	out := [][2]string{
		{"verified by read-back", fmt.Sprintf("%d of %d", f.Ready, f.Hosts)},
		{"booted after it", fmt.Sprintf("%d seen running, %d more restarted", f.Booted, f.Asked)},
		{"the server sent", fmt.Sprintf("%s on the wire = %.2f copies (%s of image data)", units.FormatBytes(r.SeedWireBytes), f.Copies, units.FormatBytes(r.SeedBytesSent))},
		{"PCs received", fmt.Sprintf("%s from the server, %s from each other", units.FormatBytes(f.FromServer), units.FormatBytes(f.FromPeers))},
		{"image", fmt.Sprintf("%s in %d cells", units.FormatBytes(r.Image.BytesShipped), r.Image.Cells)},
	}
	if f.Slowest != "" {
		out = append(out, [2]string{"writing to proof", fmt.Sprintf("median %s, slowest %s with %s", span(f.MedianS), Plain(f.Slowest), span(f.SlowestS))})
	}
	var phases []string
	for _, p := range f.Phases {
		phases = append(phases, strings.ToLower(string(p.State))+" "+span(p.S))
	}
	if len(phases) > 0 {
		out = append(out, [2]string{"time, median", strings.Join(phases, ", ")})
	}
	return out
}

// renderMarkdown is the summary for people: verdict first, seats second, figures last.
func renderMarkdown(r *Report) []byte {
	var b bytes.Buffer
	f := r.Figures()
	kind := "Job"
	if r.Kind != "" {
		kind = "Capture, job"
	}
	fmt.Fprintf(&b, "# %s %d: %s, %d of %d\n\n", kind, r.Job, md(r.Verdict()), f.Ready, f.Hosts)
	fmt.Fprintf(&b, "Room %s, image %s/%s, begun %s, %s long.\n", md(r.Room), md(r.Image.Name), md(r.Image.Version), when(r.Created), span(r.DurationS))
	for _, c := range []Class{NotUsable, OldImage, Busy} {
		hosts := r.Of(c)
		if len(hosts) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s: %d\n\n", c, len(hosts))
		for i := range hosts {
			fmt.Fprintf(&b, "- **%s** %s\n", md(hosts[i].Name), md(hosts[i].Why()))
		}
	}
	if hosts := r.Of(Ready); len(hosts) > 0 {
		fmt.Fprintf(&b, "\n## %s: %d\n\n| PC | state | attempts | from server | from PCs | cells written | cells kept |\n|---|---|--:|--:|--:|--:|--:|\n", Ready, len(hosts))
		for i := range hosts {
			h := &hosts[i]
			fmt.Fprintf(&b, "| %s | %s | %d | %s | %s | %d | %d |\n", md(h.Name), md(string(h.State)), h.Attempts, units.FormatBytes(h.BytesFromSeed), units.FormatBytes(h.BytesFromPeers), h.CellsWritten, h.CellsKept)
		}
	}
	warned := false
	for i := range r.Hosts {
		for _, w := range r.Hosts[i].Warnings {
			if !warned {
				b.WriteString("\n## Warnings\n\n")
				warned = true
			}
			fmt.Fprintf(&b, "- **%s** %s\n", md(r.Hosts[i].Name), md(w))
		}
	}
	b.WriteString("\n## Figures\n\n")
	for _, l := range r.figureLines() {
		fmt.Fprintf(&b, "- %s: %s\n", l[0], md(l[1]))
	}
	return b.Bytes()
}
