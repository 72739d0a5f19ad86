package client

import (
	"context"
	"net/http"
	"net/url"

	"labswarm/api"
)

func schedPath(name string) string { return api.RouteSchedules + "/" + url.PathEscape(name) }

// Schedules lists the schedules with their next runs.
func (c *Client) Schedules(ctx context.Context) (s []api.ScheduleInfo, err error) {
	return s, c.call(ctx, http.MethodGet, api.RouteSchedules, nil, &s)
}

// Schedule returns one schedule.
func (c *Client) Schedule(ctx context.Context, name string) (s api.ScheduleInfo, err error) {
	return s, c.call(ctx, http.MethodGet, schedPath(name), nil, &s)
}

// PutSchedule saves a schedule, or with DryRun says what it would do.
func (c *Client) PutSchedule(ctx context.Context, p api.SchedulePut) (s api.ScheduleInfo, err error) {
	return s, c.call(ctx, http.MethodPut, schedPath(p.Name), p, &s)
}

// RemoveSchedule deletes a schedule.
func (c *Client) RemoveSchedule(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, schedPath(name), nil, nil)
}

// PauseSchedule pauses a schedule, or ends the pause.
func (c *Client) PauseSchedule(ctx context.Context, name string, pause bool) (s api.ScheduleInfo, err error) {
	act := "/resume"
	if pause {
		act = "/pause"
	}
	return s, c.call(ctx, http.MethodPost, schedPath(name)+act, struct{}{}, &s)
}

// RunSchedule makes the job of a schedule now.
func (c *Client) RunSchedule(ctx context.Context, name, confirm string) (j api.Job, err error) {
	return j, c.call(ctx, http.MethodPost, schedPath(name)+"/run", api.ScheduleRunNow{Confirm: confirm}, &j)
}

// ScheduleRuns returns what became of the runs of a schedule, newest first.
func (c *Client) ScheduleRuns(ctx context.Context, name string) (r []api.ScheduleRun, err error) {
	return r, c.call(ctx, http.MethodGet, schedPath(name)+"/runs", nil, &r)
}

// Calendars lists the calendars.
func (c *Client) Calendars(ctx context.Context) (l []api.Calendar, err error) {
	return l, c.call(ctx, http.MethodGet, api.RouteCalendars, nil, &l)
}

// PutCalendar saves a calendar.
func (c *Client) PutCalendar(ctx context.Context, k api.Calendar) (out api.Calendar, err error) {
	return out, c.call(ctx, http.MethodPut, api.RouteCalendars+"/"+url.PathEscape(k.Name), k, &out)
}

// RemoveCalendar deletes a calendar that no schedule needs.
func (c *Client) RemoveCalendar(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, api.RouteCalendars+"/"+url.PathEscape(name), nil, nil)
}
