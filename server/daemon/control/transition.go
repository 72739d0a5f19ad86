package control

import (
	"time"

	"labswarm/api"
)

// Transition is a host's change of state in a job, after its commit.
type Transition struct {
	Job      uint64
	Kind     string // of the job
	Host     string
	From, To api.State
	Final    bool
	Code     string
	Took     time.Duration // in From
}
