package daemon

import (
	"context"
	"time"

	"labswarm/api"
	"labswarm/server/notify"
	"labswarm/server/report"
)

// openNotify makes what tells people; it does nothing while nobody is named.
func (s *server) openNotify() {
	s.notify = notify.New(notify.Options{Store: s.store, Bell: s.engine.Bell(), Settings: s.cfg.Notify, Server: s.cfg.Name,
		Details: s.details, Log: s.log.With("part", "notify")})
}

// details is the report of the job that ended, as Markdown.
func (s *server) details(ctx context.Context, e api.Event) string {
	if e.Code != "job_ended" {
		return ""
	}
	j, err := s.engine.Job(ctx, e.Job)
	if err != nil {
		return "" // the event's own text must do
	}
	raw, err := report.Render(report.Make(j, time.Now()), "md")
	if err != nil {
		return ""
	}
	return string(raw)
}
