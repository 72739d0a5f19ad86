package rooms

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/screen"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// news is what was read beside the picture, while learn mode is open.
type news struct {
	waiting int    // new PCs that show a code
	cause   string // why that could not be read, "" = it could
}

const newsEvery = 2 * time.Second

// Query implements screen.View: new PCs appear in learn mode only.
func (st State) Query(s *snapshot.Snapshot) screen.Query {
	if s.Server.Learn == nil {
		return screen.Query{}
	}
	return screen.Query{Key: "enrolments", Every: newsEvery, Read: func(ctx context.Context, c *client.Client) (any, error) { return c.Enrolments(ctx) }}
}

// filled is the state with what was read for it.
func (st State) filled(in screen.In) State {
	st.news = news{}
	if in.S.Server.Learn == nil { // what was read may be of another hour
		return st
	}
	st.news.cause = in.Cause
	if list, ok := in.Data.([]api.Enrolment); ok {
		st.news.waiting = Waiting(list)
	}
	return st
}

// Waiting counts the PCs that show a code and have no seat yet.
func Waiting(list []api.Enrolment) (n int) {
	for i := range list {
		if list[i].Host == "" {
			n++
		}
	}
	return n
}

// notice is the line under the rooms while learn mode is open or something
// waits for a person, "" = neither.
func (st State) notice(s *snapshot.Snapshot, w int, now time.Time) (string, theme.Role) {
	var parts, waits []string
	role, short := theme.Head, w < narrow
	if l := s.Server.Learn; l != nil {
		text := fmt.Sprintf("LEARN MODE for %s until %s", l.Room, l.Until.In(now.Location()).Format("15:04"))
		if short {
			text = fmt.Sprintf("LEARN %s %s", component.Fit(l.Room, 8), l.Until.In(now.Location()).Format("15:04"))
		}
		parts = append(parts, text)
	}
	if n := s.Server.Questions; n > 0 {
		waits = append(waits, plural(n, "question", "questions"))
	}
	switch n := st.news.waiting; {
	case n > 0 && short:
		waits = append(waits, plural(n, "new PC", "new PCs"))
	case n > 0:
		waits = append(waits, plural(n, "new PC shows a code", "new PCs show a code"))
	case st.news.cause != "":
		waits = append(waits, "new PCs could not be read: "+st.news.cause)
	}
	if len(waits) > 0 {
		role = theme.Warn
		press := ": press u"
		if short {
			press = ": u"
		}
		parts = append(parts, strings.Join(waits, ", ")+press)
	}
	if short { // what waits may not be cut
		slices.Reverse(parts)
	}
	return strings.Join(parts, "   "), role
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
