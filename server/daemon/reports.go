package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/server/report"
)

const (
	// samplesKept bounds the figures over time of one job; when they are full every second one goes, and later ones are taken half as often.
	samplesKept = 512
	maxReport   = 64 << 20 // bytes of a kept report
)

// ring holds a job's figures over time. Its memory is bounded, however long the job lasts.
type ring struct {
	list  []report.Sample
	every float64 // seconds between two, 0 = each look
}

func (r *ring) add(s report.Sample) {
	if n := len(r.list); n > 0 && s.TS-r.list[n-1].TS < r.every {
		return
	}
	if len(r.list) == samplesKept {
		half := r.list[:0]
		for i := 0; i < samplesKept; i += 2 {
			half = append(half, r.list[i])
		}
		r.list = half
		r.every = half[1].TS - half[0].TS - 0.5 // ticks come a little early at times
	}
	r.list = append(r.list, s)
}

// reports keeps the report of each job that ended, in STATE-DIR/reports. Only the upkeep's goroutine uses it.
type reports struct {
	s     *server
	rings map[uint64]*ring
	saved map[uint64]bool // of the jobs in the last look
}

func (r *reports) dir() string { return filepath.Join(r.s.cfg.StateDir, "reports") }

func reportFile(dir string, id uint64) string {
	return filepath.Join(dir, fmt.Sprintf("job-%06d.json", id))
}

// look takes in the figures of live jobs, and keeps the reports of those that have ended since.
func (r *reports) look(ctx context.Context, t api.Tick) {
	now := map[uint64]bool{}
	for _, j := range t.Jobs {
		now[j.ID] = true
		if j.Ended.IsZero() {
			r.sample(&j, t.Time)
			continue
		}
		if r.saved[j.ID] {
			continue
		}
		if err := r.keep(ctx, j.ID); err != nil {
			r.s.log.Error("report not kept", "job", j.ID, "err", err)
			continue
		}
		r.saved[j.ID] = true
		delete(r.rings, j.ID)
	}
	for id := range r.saved {
		if !now[id] {
			delete(r.saved, id)
		}
	}
}

func (r *reports) sample(j *api.Job, at time.Time) {
	g := r.rings[j.ID]
	if g == nil {
		g = &ring{}
		r.rings[j.ID] = g
	}
	s := report.Sample{TS: float64(at.Sub(j.Created).Milliseconds()) / 1000}
	for i := range j.Slots {
		s.Server, s.Peers = s.Server+j.Slots[i].BytesFromSeed, s.Peers+j.Slots[i].BytesFromPeers
	}
	g.add(s)
}

// keep writes the report of an ended job. One that is there has more samples than a server that was started since could give.
func (r *reports) keep(ctx context.Context, id uint64) error {
	path := reportFile(r.dir(), id)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	j, err := r.s.engine.Job(ctx, id)
	if err != nil {
		return err
	}
	rep := report.Make(j, time.Now())
	if g := r.rings[id]; g != nil {
		rep.Samples = g.list
	}
	raw, err := report.Render(rep, "json")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir(), 0o750); err != nil {
		return fmt.Errorf("keep report: %w", err)
	}
	tmp := path + ".new"
	err = os.WriteFile(tmp, raw, 0o640)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep report: %w", err), ignoreMissing(os.Remove(tmp)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// kept reads a kept report.
func (s *server) kept(id uint64) (report.Report, error) {
	path := reportFile(filepath.Join(s.cfg.StateDir, "reports"), id)
	st, err := os.Stat(path)
	if err != nil {
		return report.Report{}, err
	}
	if st.Size() > maxReport {
		return report.Report{}, fmt.Errorf("read report %s: %d bytes", path, st.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return report.Report{}, err
	}
	var r report.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("read report %s: %w", path, err)
	}
	return r, nil
}

// Rendered implements httpapi.ReportService: the kept report of an ended job, else what the store holds now.
func (a adminService) Rendered(ctx context.Context, id uint64, format string) (api.Rendered, error) {
	if !slices.Contains(report.Formats, format) {
		return api.Rendered{}, &api.Problem{Status: http.StatusBadRequest, Title: "bad request", Code: api.CodeUsage,
			Detail: fmt.Sprintf("format %q is not known, use %s", format, strings.Join(report.Formats, ", "))}
	}
	rep, err := a.report(ctx, id)
	if err != nil {
		return api.Rendered{}, err
	}
	raw, err := report.Render(rep, format)
	return api.Rendered{Name: fmt.Sprintf("job-%d.%s", id, format), Text: string(raw)}, err
}

// report is the kept report of an ended job, else one of what the store holds now.
func (a adminService) report(ctx context.Context, id uint64) (report.Report, error) {
	rep, err := a.s.kept(id)
	if err == nil {
		return rep, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		a.s.log.Warn("kept report", "job", id, "err", err)
	}
	j, err := a.Job(ctx, id)
	if err != nil {
		return report.Report{}, err
	}
	return report.Make(j, time.Now()), nil
}

// ReportSummary implements httpapi.ReportService.
func (a adminService) ReportSummary(ctx context.Context, id uint64) (api.ReportSummary, error) {
	rep, err := a.report(ctx, id)
	if err != nil {
		return api.ReportSummary{}, err
	}
	return rep.Summary(), nil
}

// Reports implements httpapi.ReportService, the newest first.
func (a adminService) Reports(context.Context) ([]api.ReportInfo, error) {
	dir := filepath.Join(a.s.cfg.StateDir, "reports")
	entries, err := os.ReadDir(dir)
	if ignoreMissing(err) != nil {
		return nil, fmt.Errorf("list reports: %w", err)
	}
	out := []api.ReportInfo{}
	for _, e := range slices.Backward(entries) {
		name, isJSON := strings.CutSuffix(strings.TrimPrefix(e.Name(), "job-"), ".json")
		id, err := strconv.ParseUint(name, 10, 64)
		if !isJSON || err != nil {
			continue
		}
		r, err := a.s.kept(id)
		if err != nil {
			a.s.log.Warn("kept report", "job", id, "err", err)
			continue
		}
		f := r.Figures()
		out = append(out, api.ReportInfo{Job: id, Room: r.Room, Image: r.Image.Name + "/" + r.Image.Version, Result: r.Result, Created: r.Created,
			DurationS: r.DurationS, Hosts: f.Hosts, Ready: f.Ready})
		if len(out) == 200 {
			break
		}
	}
	return out, nil
}
