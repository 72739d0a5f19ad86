package job

import (
	"context"
	"fmt"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/screen"
	"labswarm/tui/screen/confirm"
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
