package classroom

import (
	"context"
	"encoding/json"
	"fmt"

	"labswarm/api"
)

// Admin runs a labswarm command on the session's server, as an admin does, and
// returns what it printed.
func (s *Session) Admin(ctx context.Context, args ...string) ([]byte, error) {
	return s.admin.run(ctx, args...)
}

// AdminJob is Admin for the commands that make a job; --json is added.
func (s *Session) AdminJob(ctx context.Context, args ...string) (api.Job, error) {
	var job api.Job
	out, err := s.admin.run(ctx, append(args, "--json")...)
	if err != nil {
		return job, err
	}
	if err := json.Unmarshal(out, &job); err != nil {
		return job, fmt.Errorf("read answer of %s %s: %w", args[0], args[1], err)
	}
	if job.ID == 0 {
		return job, fmt.Errorf("read answer of %s %s: no job id in %q", args[0], args[1], out)
	}
	return job, nil
}
