package api

import "time"

// Schedule starts jobs at local times. Its window begins at Start on each
// allowed day and ends at End; End <= Start means the next day.
type Schedule struct {
	Name     string    `json:"name"`
	Weekdays []string  `json:"weekdays,omitempty"` // mon tue wed thu fri sat sun, of the day on which the window begins
	Date     string    `json:"date,omitempty"`     // once, instead of weekdays: 2026-12-01
	Start    string    `json:"start"`              // 22:00
	End      string    `json:"end"`                // 06:00
	TZ       string    `json:"tz"`                 // IANA name; "" = the server's
	From     string    `json:"from,omitempty"`     // first day, 2026-09-01
	To       string    `json:"to,omitempty"`       // last day
	Skip     []string  `json:"skip,omitempty"`     // calendars with days on which it does not run
	Only     []string  `json:"only,omitempty"`     // calendars with the only days on which it runs
	CatchUp  string    `json:"catch_up,omitempty"` // missed start: late (default: inside the window, if there is time) or never
	Job      JobCreate `json:"job"`                // image (NAME = the newest at that time), room or hosts, policies; no window, no confirmation
	Paused   time.Time `json:"paused,omitzero"`
	PausedBy string    `json:"paused_by,omitempty"`
	Since    time.Time `json:"since,omitzero"` // saved or resumed: windows that began before do not count
}

// SchedulePut saves a schedule: PUT /v1/schedules/{name}.
type SchedulePut struct {
	Schedule
	Confirm string `json:"confirm"` // the typed room name; for named hosts the image name
	DryRun  bool   `json:"dry_run"` // show what it would do, store nothing
}

// ScheduleRun is one entry of the ledger: what became of the run of one local
// date. There is one per date, whatever restarts and clocks do.
type ScheduleRun struct {
	Schedule string    `json:"schedule"`
	Date     string    `json:"date"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Result   string    `json:"result"` // started, skipped, missed
	Reason   string    `json:"reason,omitempty"`
	Job      uint64    `json:"job,omitempty"`
	At       time.Time `json:"at"` // when it was decided
}

// Results of a run.
const (
	RunStarted = "started"
	RunSkipped = "skipped"
	RunMissed  = "missed"
)

// ScheduleNext is a run that is still to come.
type ScheduleNext struct {
	Date  string    `json:"date"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	Skip  string    `json:"skip,omitempty"` // why it will not run, "" = it will
}

// ScheduleInfo is a schedule with its past and future.
type ScheduleInfo struct {
	Schedule
	Next  []ScheduleNext `json:"next"`            // five
	Last  *ScheduleRun   `json:"last,omitempty"`  // newest in the ledger
	Clock string         `json:"clock,omitempty"` // why nothing starts: the server's clock is in doubt
	Plan  *JobPlan       `json:"plan,omitempty"`  // what it would do now; of a dry run only
}

// Calendar is a named list of days.
type Calendar struct {
	Name string   `json:"name"`
	Days []string `json:"days"` // 2026-12-24, or 2026-12-24..2027-01-06
}

// Routes of schedules.
const (
	RouteSchedules = "/v1/schedules" // GET []ScheduleInfo; /{name} GET, PUT SchedulePut, DELETE; /{name}/pause, resume, run POST; /{name}/runs GET []ScheduleRun
	RouteCalendars = "/v1/calendars" // GET []Calendar; /{name} PUT Calendar, DELETE
)

// ScheduleRunNow makes the job of a schedule at once: POST /v1/schedules/{name}/run.
type ScheduleRunNow struct {
	Confirm string `json:"confirm"` // as in JobCreate
}
