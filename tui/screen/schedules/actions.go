package schedules

import (
	"context"
	"fmt"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/screen/job"
	"labswarm/tui/snapshot"
)

// pause asks whether a schedule is to be paused, or to run again.
func pause(s *api.ScheduleInfo) confirm.State {
	name := s.Name
	// A clock in doubt is ended the same way: somebody says that it is right.
	stop := s.Paused.IsZero() && s.Clock == ""
	word, done := "resume", "runs again"
	facts := []string{"It runs again from its next window on; windows that began before do not count."}
	if stop {
		word, done = "pause", "is paused; space resumes it"
		facts = []string{"It starts nothing until it is resumed. A job that runs goes on."}
	} else if s.Clock != "" {
		facts = append(facts, "Nothing starts now: "+snapshot.Clean(s.Clock)+". Put the server's clock right first.")
	}
	shown := snapshot.Clean(name)
	return confirm.State{Title: fmt.Sprintf("%s schedule %s?", title(word), shown), Facts: facts, Action: screen.Action{
		Doing: word + " schedule " + shown,
		Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			_, err := c.PauseSchedule(ctx, name, stop)
			return screen.Done{Said: fmt.Sprintf("schedule %s %s", shown, done)}, err
		},
	}}
}

// remove asks whether a schedule is to be deleted.
func remove(s *api.ScheduleInfo) confirm.State {
	name, shown := s.Name, snapshot.Clean(s.Name)
	return confirm.State{
		Title: fmt.Sprintf("Delete schedule %s?", shown),
		Facts: []string{fmt.Sprintf("%s, %s for %s.", when(s), image(s), target(s)), "A job that runs goes on. To make it again: labswarm schedule add."},
		Action: screen.Action{Doing: "delete schedule " + shown, Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			return screen.Done{Said: fmt.Sprintf("schedule %s is deleted", shown)}, c.RemoveSchedule(ctx, name)
		}},
	}
}

// runNow asks for the name before the job is made: it erases disks.
func runNow(s *api.ScheduleInfo, pic *snapshot.Snapshot) confirm.State {
	name, want, what := s.Name, s.Job.Room, "the room's name"
	n := len(s.Job.Hosts)
	if want == "" {
		want, what = s.Job.Image, "the image's name"
	} else if i, ok := pic.Find(want); ok {
		n = len(pic.Rooms[i].Hosts)
	}
	return confirm.State{
		Title: fmt.Sprintf("ERASE DISKS NOW: %s for %s", image(s), target(s)),
		Facts: []string{
			fmt.Sprintf("%s replaces everything on the disks of up to %d hosts, now, for as long as the schedule's window is.", image(s), n),
			"The planned nights stay as they are. To see the plan first: n on the rooms screen.",
		},
		Want: want, What: what,
		Action: screen.Action{Doing: "run schedule " + snapshot.Clean(name), Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			j, err := c.RunSchedule(ctx, name, want) // typed, letter by letter: confirm.State saw to that
			if err != nil {
				return screen.Done{}, err
			}
			return screen.Done{Said: fmt.Sprintf("job %d is made; its hosts are reimaged when they boot from the network", j.ID), Then: job.State{ID: j.ID}}, nil
		}},
	}
}
