package job

import (
	"context"
	"fmt"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
	"labswarm/tui/screen/list"
	"labswarm/tui/snapshot"
)

// cancel asks whether the job is to be ended.
func cancel(j *api.Job) confirm.State {
	before, behind := 0, 0
	for i := range j.Slots {
		switch s := &j.Slots[i]; {
		case s.State.Ended():
		case s.PONR:
			behind++
		default:
			before++
		}
	}
	id := j.ID
	return confirm.State{
		Title: fmt.Sprintf("Cancel job %d, %s?", id, component.Image(j)),
		Facts: []string{
			fmt.Sprintf("%d hosts have not begun to write: they are released and boot their own disks.", before),
			fmt.Sprintf("%d hosts are past the point of no return: they finish.", behind),
		},
		Action: screen.Action{
			Doing: fmt.Sprintf("cancel job %d", id),
			Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
				_, err := c.CancelJob(ctx, id)
				return screen.Done{Said: fmt.Sprintf("job %d is cancelled", id)}, err
			},
		},
	}
}

// pause asks whether a job is to be paused, or to go on.
func pause(j *api.Job) confirm.State {
	id := j.ID
	st := confirm.State{
		Title: fmt.Sprintf("Pause job %d, %s?", id, component.Image(j)),
		Facts: []string{"No new host passes its point of no return. Hosts behind it go on: a half-written disk does not boot."},
		Action: screen.Action{Doing: fmt.Sprintf("pause job %d", id), Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			_, err := c.PauseJob(ctx, id)
			return screen.Done{Said: fmt.Sprintf("job %d is paused; p resumes it", id)}, err
		}},
	}
	if !j.Paused.IsZero() {
		st.Title, st.Facts = fmt.Sprintf("Resume job %d, %s?", id, component.Image(j)), []string{"Hosts that wait go on."}
		st.Action = screen.Action{Doing: fmt.Sprintf("resume job %d", id), Do: func(ctx context.Context, c *client.Client) (screen.Done, error) {
			_, err := c.ResumeJob(ctx, id)
			return screen.Done{Said: fmt.Sprintf("job %d goes on", id)}, err
		}}
	}
	return st
}

// selectedHost is the host of the selected line.
func (st State) selectedHost(in screen.In, t list.Table) []*snapshot.Host {
	if l := st.Selected(t); l != nil {
		if _, h := in.S.Host(l.Key); h != nil {
			return []*snapshot.Host{h}
		}
	}
	return nil
}
