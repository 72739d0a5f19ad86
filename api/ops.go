package api

import "time"

// Routes of running the server itself. Those without /v1 are what monitoring asks, and answer plain text; with
// metrics.listen they are on TCP, too.
const (
	RouteHealth   = "/healthz"           // GET: 200 while the job loop makes its rounds
	RouteReady    = "/readyz"            // GET: 200 when every part is up; ?verbose lists them
	RouteMetrics  = "/metrics"           // GET: Prometheus
	RouteDoctor   = "/v1/doctor"         // GET Checkup
	RouteSnapshot = "/v1/state/snapshot" // POST Snapshot
)

// Snapshot is a copy of the server's state.
type Snapshot struct {
	Name  string    `json:"name"`
	Path  string    `json:"path"`
	Bytes int64     `json:"bytes"`
	Time  time.Time `json:"time"`
}

// Outcomes of a Check.
const (
	CheckOK   = "ok"
	CheckWarn = "warn"
	CheckFail = "fail"
)

// Check is one probe of the doctor, or one part of readiness.
type Check struct {
	Name   string `json:"name"`   // stable, for programs
	Result string `json:"result"` // ok, warn or fail
	Text   string `json:"text"`   // what was found
	Advice string `json:"advice"` // what to do, "" when ok
}

// Checkup is what the doctor found.
type Checkup struct {
	Time   time.Time `json:"time"`
	Result string    `json:"result"` // the worst of Checks
	Checks []Check   `json:"checks"`
}

// Worst is the worst result of checks, ok when there are none.
func Worst(checks []Check) string {
	worst := CheckOK
	for _, c := range checks {
		if c.Result == CheckFail || (c.Result == CheckWarn && worst == CheckOK) {
			worst = c.Result
		}
	}
	return worst
}

// RouteReports are the kept reports of jobs: GET []ReportInfo; /{job} GET Rendered, ?format=json|csv|md|html;
// /{job}/summary GET ReportSummary.
const RouteReports = "/v1/reports"

// ReportInfo is a line of the list of reports.
type ReportInfo struct {
	Job       uint64    `json:"job"`
	Room      string    `json:"room"`
	Image     string    `json:"image"` // name/version
	Result    string    `json:"result"`
	Created   time.Time `json:"created"`
	DurationS float64   `json:"duration_s"`
	Hosts     int       `json:"hosts"`
	Ready     int       `json:"ready"` // of them with the new image, read back
}

// Rendered is a report as a document.
type Rendered struct {
	Name string `json:"name"` // for a file
	Text string `json:"text"`
}

// ReportSummary is a report for people: verdict first, seats second, figures last. GET /v1/reports/{job}/summary.
type ReportSummary struct {
	Job       uint64         `json:"job"`
	Kind      string         `json:"kind,omitempty"` // "" = deployment, capture
	Room      string         `json:"room"`
	Image     string         `json:"image"` // name/version
	Verdict   string         `json:"verdict"`
	Created   time.Time      `json:"created"`
	DurationS float64        `json:"duration_s"`
	Hosts     int            `json:"hosts"`
	Ready     int            `json:"ready"`  // of them with the new image, read back
	Groups    []ReportGroup  `json:"groups"` // the worst first, without empty ones
	Warnings  []ReportHost   `json:"warnings"`
	Figures   []ReportFigure `json:"figures"`
}

// Names of ReportGroup: what a host's user finds in the morning.
const (
	GroupNotUsable = "NOT USABLE"
	GroupOldImage  = "USABLE, OLD IMAGE"
	GroupBusy      = "NOT AT ITS END"
	GroupReady     = "NEW IMAGE"
)

// ReportGroup is the hosts with one outcome, by name.
type ReportGroup struct {
	Name  string       `json:"name"`
	Hosts []ReportHost `json:"hosts"`
}

// ReportHost is a host with a sentence about it, "" = nothing to say.
type ReportHost struct {
	Host string `json:"host"`
	Text string `json:"text"`
}

// ReportFigure is a figure with its name.
type ReportFigure struct {
	Name string `json:"name"`
	Text string `json:"text"`
}
