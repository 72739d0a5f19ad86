package api

// CaptureCreate asks for an image of a host's disk: POST
// /v1/images/{name}/capture. The answer is the Job that does it; the
// Idempotency-Key header makes a repeated request harmless.
type CaptureCreate struct {
	Host       string   `json:"host"`
	Force      []string `json:"force,omitempty"` // guards that are overridden, by name
	Base       string   `json:"base,omitempty"`  // version of the same image, or latest: cells that equal its own are not sent
	CellBytes  int64    `json:"cell_bytes,omitempty"`
	After      string   `json:"after,omitempty"` // reboot (default), poweroff
	ExpiresInS int64    `json:"expires_in_s,omitempty"`
}

// KindCapture is the Kind of a Job that reads the disk of its one host and
// makes an image of it. It writes to no disk.
const KindCapture = "capture"

// CaptureDraft is what an agent says of its disk before it sends cells: POST
// /agent/v1/capture.
type CaptureDraft struct {
	BootID  string `json:"boot_id"`
	Size    int64  `json:"size"`            // bytes
	Sector  int    `json:"sector"`          // logical sector, bytes
	Extents int64  `json:"extents"`         // of Used
	Used    []byte `json:"used"`            // used map in the form of used.bin (docs/IMAGE-FORMAT.md)
	Smart   string `json:"smart,omitempty"` // what the disk says of its health when it fails; taken only when forced
}

// CaptureState answers every call of a capture.
type CaptureState struct {
	Phase     string `json:"phase"`           // a value of Capture...
	CellBytes int64  `json:"cell_bytes"`      // the disk is cut into cells of this size
	Cells     int    `json:"cells"`           // with used bytes: so many are to come
	Next      int    `json:"next"`            // ordinal of the next cell; what is before is here
	Done      int64  `json:"done"`            // bytes of the phase
	Total     int64  `json:"total"`           //
	Base      string `json:"base,omitempty"`  // version whose hashes are at RouteCaptureBase: cells like its own need no frame
	Image     string `json:"image,omitempty"` // name/version, when published
	Code      string `json:"code,omitempty"`  // when failed
	Error     string `json:"error,omitempty"`
}

// Phases of a capture on the server.
const (
	CaptureNone       = ""           // the server knows no draft: send it (again)
	CaptureOpening    = "opening"    // it looks at what an earlier boot has sent
	CaptureReceiving  = "receiving"  // it awaits cells from Next on
	CapturePublishing = "publishing" // it reads back what has arrived
	CapturePublished  = "published"  // Image is there
	CaptureFailed     = "failed"     // nothing was published
)

// Routes of a capture on the agent listener, in the order of their use.
const (
	RouteCapture       = "/agent/v1/capture"        // GET CaptureState; POST CaptureDraft -> CaptureState
	RouteCaptureBase   = "/agent/v1/capture/base"   // GET: 32 bytes for each cell, SHA-256 of the base's, zeros = none
	RouteCaptureCells  = "/agent/v1/capture/cells"  // POST stream of api/cells -> CaptureState
	RouteCaptureFinish = "/agent/v1/capture/finish" // POST {} -> CaptureState
)
