package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"labswarm/api"
)

// PlanJob is the dry run of CreateJob: nothing is stored.
func (c *Client) PlanJob(ctx context.Context, j api.JobCreate) (out api.JobPlan, err error) {
	j.DryRun = true
	return out, c.call(ctx, http.MethodPost, api.RoutePlans, j, &out)
}

// PauseJob keeps hosts that have not begun to write from doing so.
func (c *Client) PauseJob(ctx context.Context, id uint64) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodPost, jobPath(id)+"/pause", struct{}{}, &j)
}

// ResumeJob ends a pause.
func (c *Client) ResumeJob(ctx context.Context, id uint64) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodPost, jobPath(id)+"/resume", struct{}{}, &j)
}

// ExtendJob moves the end of a job's window.
func (c *Client) ExtendJob(ctx context.Context, id uint64, notAfter time.Time) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodPost, jobPath(id)+"/extend", api.JobExtend{NotAfter: notAfter}, &j)
}

// ActOnHost does something to one host of a job, see api.ActRetry and so on.
func (c *Client) ActOnHost(ctx context.Context, id uint64, host, act string) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodPost, jobPath(id)+"/hosts/"+url.PathEscape(host)+"/"+act, struct{}{}, &j)
}
