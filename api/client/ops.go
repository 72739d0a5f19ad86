package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"labswarm/api"
)

// Snapshot has the server copy its state.
func (c *Client) Snapshot(ctx context.Context) (s api.Snapshot, err error) {
	return s, c.call(ctx, http.MethodPost, api.RouteSnapshot, nil, &s)
}

// Doctor has the server examine itself and its network; it takes some seconds.
func (c *Client) Doctor(ctx context.Context) (d api.Checkup, err error) {
	return d, c.call(ctx, http.MethodGet, api.RouteDoctor, nil, &d)
}

// Reports lists the kept reports, the newest first.
func (c *Client) Reports(ctx context.Context) (r []api.ReportInfo, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteReports, nil, &r)
}

// Rendered is a job's report as json, csv, md or html.
func (c *Client) Rendered(ctx context.Context, job uint64, format string) (r api.Rendered, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteReports+"/"+strconv.FormatUint(job, 10)+"?format="+url.QueryEscape(format), nil, &r)
}

// ReportSummary is a job's report as people read it.
func (c *Client) ReportSummary(ctx context.Context, job uint64) (r api.ReportSummary, err error) {
	return r, c.call(ctx, http.MethodGet, api.RouteReports+"/"+strconv.FormatUint(job, 10)+"/summary", nil, &r)
}
