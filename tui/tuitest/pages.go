package tuitest

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"labswarm/api"
)

// Checkup is what the doctor finds: one of each result.
func Checkup() api.Checkup {
	return api.Checkup{Time: Now().Add(-2 * time.Second), Result: api.CheckFail, Checks: []api.Check{
		{Name: "state", Result: api.CheckOK, Text: "state.db 3.1 MB, snapshot 2 min old"},
		{Name: "dhcp", Result: api.CheckWarn, Text: "10.8.1.250 (00:e0:4c:68:00:11) also offers boot files", Advice: "unplug it, or let the switch drop DHCP offers from that port (DHCP snooping)"},
		{Name: "boot-files", Result: api.CheckOK, Text: "shim, grub, vmlinuz and initrd are there; the initrd has our keys"},
		{Name: "disk", Result: api.CheckFail, Text: "4 % of the image store's disk are free, jobs stop below 5 %", Advice: "labswarm image gc"},
	}}
}

// Reports are the kept ones.
func Reports() []api.ReportInfo {
	return []api.ReportInfo{
		{Job: 117, Room: "A102", Image: "deb12-lab/14", Result: "ok", Created: Now().Add(-25 * time.Hour), DurationS: 1200, Hosts: 2, Ready: 2},
		{Job: 116, Room: "A102", Image: "deb12-lab/14", Result: "partial", Created: Now().Add(-49 * time.Hour), DurationS: 1820, Hosts: 3, Ready: 1},
	}
}

// Summary is the report of the night in A101 (Facts).
func Summary(job uint64) api.ReportSummary {
	r := api.ReportSummary{Job: job, Room: "A101", Image: "win11/2026-11", Verdict: "PARTIAL", Created: Now().Add(-22 * time.Minute), DurationS: 1320, Hosts: 38, Ready: 33,
		Groups: []api.ReportGroup{
			{Name: api.GroupNotUsable, Hosts: []api.ReportHost{{Host: "a13", Text: "failed (DW): write cell 18743 at 18.3 GiB of SAMSUNG 870 S5Y1NX0R: input/output error, 2 tries"}, {Host: "a32", Text: "failed (CR): the agent fell silent at 91 %"}}},
			{Name: api.GroupOldImage, Hosts: []api.ReportHost{{Host: "a07", Text: "skipped (DS): 120 GB < 238 GB"}, {Host: "a22", Text: "no_show: never seen in the window"}}},
			{Name: api.GroupBusy, Hosts: []api.ReportHost{{Host: "a20", Text: "verifying"}}},
			{Name: api.GroupReady},
		},
		Warnings: []api.ReportHost{{Host: "a02", Text: "root on LVM: the volume group keeps the image's name"}},
		Figures: []api.ReportFigure{{Name: "verified by read-back", Text: "33 of 38"}, {Name: "booted after it", Text: "33 seen running, 0 more restarted"}, {Name: "the server sent", Text: "10.2 GiB on the wire = 1.01 copies (31.7 GiB of image data)"},
			{Name: "PCs received", Text: "34.1 GiB from the server, 1.1 TiB from each other"}, {Name: "time, median", Text: "waking 1:12, booting 0:48, checking 0:16, writing 6:05, verifying 3:30, rebooting 0:52"},
			{Name: "cells", Text: "4011 of 1061082 kept, 1057071 fetched (99.6 %)"}},
	}
	for i := range 38 {
		name := Facts(40).Hosts[i].Name
		if strings.Contains("a07 a13 a20 a22 a32", name) {
			continue
		}
		r.Groups[3].Hosts = append(r.Groups[3].Hosts, api.ReportHost{Host: name, Text: "121 cells kept, 32033 fetched; 1.2 GiB server, 30.2 GiB PCs; booted"})
	}
	return r
}

// report answers with a summary or a document.
func report(w http.ResponseWriter, r *http.Request) {
	id, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, api.RouteReports+"/"), "/")
	n, err := strconv.ParseUint(id, 10, 64)
	switch {
	case err != nil || n > 200:
		w.WriteHeader(http.StatusNotFound)
		answer(w, api.Problem{Status: 404, Title: "Not Found", Code: api.CodeNotFound, Detail: "there is no job " + id})
	case what == "summary":
		answer(w, Summary(n))
	default:
		format := r.URL.Query().Get("format")
		answer(w, api.Rendered{Name: "job-" + id + "." + format, Text: "report of job " + id + " as " + format + "\n"})
	}
}

// Did lists what was asked for images: path and body.
func (s *Server) Did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.did...)
}

// states: a version is pinned once that was asked for.
func (s *Server) states() []api.ImageState {
	st := api.ImageState{Name: "win11", Version: "2026-11", Refs: []string{"the newest version of win11"}}
	for _, d := range s.Did() {
		if strings.HasPrefix(d, api.RouteImagePin) {
			st.Pinned = strings.Contains(d, `"pinned":true`)
		}
	}
	return []api.ImageState{st}
}

// imageAction pins, captures, and refuses to remove what is needed.
func (s *Server) imageAction(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil || !json.Valid(body) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.did = append(s.did, r.URL.Path+" "+string(body))
	s.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/capture"):
		answer(w, api.Job{ID: 120, Kind: api.KindCapture})
	case r.URL.Path == api.RouteImageRemove && strings.Contains(string(body), "win11"):
		w.WriteHeader(http.StatusConflict)
		answer(w, api.Problem{Status: 409, Code: api.CodeUsage, Detail: "win11/2026-11 is needed: the newest version of win11"})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
