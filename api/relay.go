package api

import "time"

// A relay is `labswarm seed` on another machine: it holds copies of chosen
// images and serves them as an early parent. It shows its token, as "Bearer",
// in every request; the token is made by RouteRelays on the admin socket.

// RelayImage is one image version on a relay.
type RelayImage struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	InfoHash string `json:"infohash"`
	Pieces   int    `json:"pieces"`
	Have     int    `json:"have"`    // pieces held and right as far as is known
	Serving  bool   `json:"serving"` // read back as a whole, published and served
	State    string `json:"state"`   // what it does with it, one line for people
	RateBps  int64  `json:"rate_bps"`
	Sent     int64  `json:"bytes_sent"`     // image bytes sent to hosts since the relay was started
	Received int64  `json:"bytes_received"` // image bytes received since then

	Scrub *RelayScrub `json:"scrub,omitempty"` // nil: never, or not yet
}

// RelayScrub says how a relay's disk holds what was copied: every cell is read
// and hashed again from time to time.
type RelayScrub struct {
	Last    time.Time `json:"last,omitzero"`     // end of the last complete one, also of the reading back after copying
	Next    time.Time `json:"next,omitzero"`     // zero while one runs
	Damaged int       `json:"damaged"`           // cells it found damaged; each was fetched again
	Frames  int       `json:"frames"`            // compressed cells it found damaged; they were made again
	Running bool      `json:"running,omitempty"` // one runs now
	Done    int       `json:"done,omitempty"`    // cells it has read
	Paused  bool      `json:"paused,omitempty"`  // it waits, as hosts are served
}

// RelayReport is sent every Interval: POST /relay/v1/report.
type RelayReport struct {
	Instance string       `json:"instance"` // 32 hex digits, random, of this state folder
	Version  string       `json:"version"`  // build
	PeerPort int          `json:"peer_port"`
	Room     string       `json:"room,omitempty"`      // the room it stands in
	LinkMbps int          `json:"link_mbps,omitempty"` // what it can send, Mb/s; 0 = unknown
	Wants    []string     `json:"wants"`               // image names
	Images   []RelayImage `json:"images"`
	Error    string       `json:"error,omitempty"` // what is wrong with the relay as a whole
}

// RelayWant is an image version that a relay is to hold.
type RelayWant struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	InfoHash string `json:"infohash"`
	Digest   string `json:"digest"` // hex SHA-256 of manifest.json
	// Sources says whom to fetch it from; nil while the relay has all of it.
	Sources *Assignment `json:"sources,omitempty"`
	Pass    RelayPass   `json:"pass"`
}

// RelayPass makes a relay a member of a swarm for the time being; DER.
type RelayPass struct {
	Authority []byte `json:"authority"` // certificate that the members' are signed with
	Cert      []byte `json:"cert"`      // the relay's own, over the key of its TLS certificate
}

// RelayReply answers RelayReport.
type RelayReply struct {
	Name       string      `json:"name"` // of the relay
	IntervalMs int         `json:"interval_ms"`
	ImageKeys  [][]byte    `json:"image_keys"` // ed25519 keys that manifests may be signed with
	Wants      []RelayWant `json:"wants"`      // to hold; what is not listed may go
	Missing    []string    `json:"missing"`    // wanted names that the server has no image of
}

// Relay is one relay as the admin sees it: GET /v1/relays.
type Relay struct {
	Name     string       `json:"name"`
	Created  time.Time    `json:"created"`
	Seen     time.Time    `json:"seen,omitzero"` // last report to this server process
	Alive    bool         `json:"alive"`         // heard of within 10 s
	Addr     string       `json:"addr,omitempty"`
	Room     string       `json:"room,omitempty"`
	LinkMbps int          `json:"link_mbps,omitempty"`
	Version  string       `json:"version,omitempty"`
	Images   []RelayImage `json:"images"`
	Missing  []string     `json:"missing,omitempty"`
	Error    string       `json:"error,omitempty"`
}

// RelayAdd asks for a new relay: POST /v1/relays.
type RelayAdd struct {
	Name string `json:"name"`
}

// RelayToken answers RelayAdd. The token is shown this once and stored only as
// a hash.
type RelayToken struct {
	Name      string `json:"name"`
	Token     string `json:"token"`
	ServerKey string `json:"server_key"` // fingerprint: "sha256:" and 64 hex digits over the raw ed25519 key
	Server    string `json:"server"`     // address and port of the agent listener
}

// Routes of relays on the agent listener.
const (
	RouteRelayReport = "/relay/v1/report"
	RouteRelayImage  = "/relay/v1/image/" // GET + NAME/VERSION/FILE, files as for agents
)

// RelaySilence is how long a relay that is not heard of stays in the plan.
const RelaySilence = 10 * time.Second
