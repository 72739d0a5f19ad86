package httpapi

import (
	"cmp"
	"context"
	"net/http"

	"labswarm/api"
)

// ReportService keeps the reports of jobs.
type ReportService interface {
	// Reports lists what is kept, the newest 200 first.
	Reports(ctx context.Context) ([]api.ReportInfo, error)
	// Rendered is one report as json, csv, md or html.
	Rendered(ctx context.Context, job uint64, format string) (api.Rendered, error)
	// ReportSummary is one report as people read it.
	ReportSummary(ctx context.Context, job uint64) (api.ReportSummary, error)
}

func (a *Admin) reportRoutes() []Route {
	return []Route{
		{Method: "GET", Path: api.RouteReports, Summary: "kept reports of jobs, the newest first", Out: []api.ReportInfo{}, h: get(a.svc.Reports)},
		{Method: "GET", Path: api.RouteReports + "/{id}", Summary: "one report as a document", Query: []string{"format"}, Out: api.Rendered{}, h: func(w http.ResponseWriter, r *http.Request) error {
			id, err := jobID(r)
			if err != nil {
				return err
			}
			doc, err := a.svc.Rendered(r.Context(), id, cmp.Or(r.URL.Query().Get("format"), "json"))
			if err != nil {
				return err
			}
			return answer(w, doc)
		}},
		{Method: "GET", Path: api.RouteReports + "/{id}/summary", Summary: "one report as people read it: verdict, seats, figures", Out: api.ReportSummary{}, h: func(w http.ResponseWriter, r *http.Request) error {
			id, err := jobID(r)
			if err != nil {
				return err
			}
			sum, err := a.svc.ReportSummary(r.Context(), id)
			if err != nil {
				return err
			}
			return answer(w, sum)
		}},
	}
}
