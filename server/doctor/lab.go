package doctor

import (
	"context"
	"fmt"
	"strings"

	"labswarm/api"
)

const maxNamed = 10 // hosts in one line

func checkLab(ctx context.Context, cfg *Config) []api.Check {
	if cfg.Lab == nil {
		return nil
	}
	l, err := cfg.Lab(ctx)
	if err != nil {
		return []api.Check{fail("lab", err.Error(), "look at the server's log: journalctl -u labswarm")}
	}
	return judgeLab(l)
}

func judgeLab(l Lab) []api.Check {
	var out []api.Check
	for _, f := range l.Faults {
		out = append(out, fail("schedules", f, "`labswarm schedule ls`; then change, pause or remove it"))
	}
	if len(l.Faults) == 0 {
		out = append(out, ok("schedules", "%d schedules, none in another one's way", l.Schedules))
	}
	if l.Questions > 0 {
		out = append(out, warn("questions", fmt.Sprintf("%d questions wait for an answer", l.Questions), "`labswarm host questions`: until then these PCs get no order"))
	}
	if n := len(l.Quarantined); n > 0 {
		names := strings.Join(l.Quarantined[:min(n, maxNamed)], ", ")
		if n > maxNamed {
			names += fmt.Sprintf(" and %d more", n-maxNamed)
		}
		out = append(out, warn("quarantine", fmt.Sprintf("%d PCs are in quarantine: %s", n, names), "`labswarm host show NAME` tells why, `labswarm host questions` ends it"))
	}
	return out
}
