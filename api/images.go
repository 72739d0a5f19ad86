package api

import "time"

// ImageState is what the server knows of an image version besides its files.
type ImageState struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Refs       []string  `json:"refs"` // who needs it, a sentence each; such a version is not removed
	Pinned     bool      `json:"pinned"`
	Quarantine string    `json:"quarantine,omitempty"` // why no new job may use it, "" = it may
	Checked    time.Time `json:"checked,omitzero"`     // when its cells were last read and compared
	Outcome    string    `json:"outcome,omitempty"`    // of that, for people
	Bad        []int64   `json:"bad_cells,omitempty"`  // cells known to be damaged, when in quarantine
	Healing    string    `json:"healing,omitempty"`    // who was asked for them last and what came of it, for people
}

// ImageRemove asks to remove one version: POST /v1/images/remove.
type ImageRemove struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Force   bool   `json:"force"` // although it is the newest or a room was given it; never one that is pinned or in use
}

// ImagePin keeps a version from being removed, or ends that: POST /v1/images/pin.
type ImagePin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Pinned  bool   `json:"pinned"`
}

// ImageGarbage is one version that nobody needs: GET /v1/images/garbage?keep=N.
type ImageGarbage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Bytes   int64  `json:"allocated_bytes"` // that it takes; blocks shared with other versions are counted too
}

// ImageCheck is what reading a version found: POST /v1/images/checked.
type ImageCheck struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Digest     string `json:"manifest_digest"` // hex; another one means that the version is not the one that was read
	Quarantine string `json:"quarantine"`      // why no job may use it, "" = all cells are right
	Outcome    string `json:"outcome"`         // for people
	Begun      bool   `json:"begun"`           // it is still being read or repaired
	// Bad lists the damaged cells; who holds them is asked for them.
	Bad []int64 `json:"bad_cells,omitempty"`
}

// ImageHeal asks to make damaged cells right again, from relays and terminals that hold them: POST /v1/images/heal. The
// answer comes within half a minute, whether all came or not.
type ImageHeal struct {
	Name    string  `json:"name"`
	Version string  `json:"version"`
	Digest  string  `json:"manifest_digest"` // hex
	Cells   []int64 `json:"cells"`
}

// ImageHealed is what was done.
type ImageHealed struct {
	Made    int      `json:"made"`    // cells made again from their compressed form
	Fetched int      `json:"fetched"` // cells that others gave back
	From    []string `json:"from"`    // who
	Note    string   `json:"note"`    // why others did not come, for people
	Left    []int64  `json:"left"`    // cells that are still damaged
}

// Routes of the image store on the admin socket.
const (
	RouteImageStates  = "/v1/images/states"  // GET
	RouteImageRemove  = "/v1/images/remove"  // POST
	RouteImagePin     = "/v1/images/pin"     // POST
	RouteImageGarbage = "/v1/images/garbage" // GET, ?keep=N
	RouteImageChecked = "/v1/images/checked" // POST
	RouteImageHeal    = "/v1/images/heal"    // POST
)
