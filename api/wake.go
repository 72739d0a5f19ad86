package api

// RouteWake switches hosts on: POST WakeRequest -> WakeReply.
const RouteWake = "/v1/wake"

// WakeRequest names hosts, or all of a room. Nothing is armed by it: a host
// that no job waits for starts its own system.
type WakeRequest struct {
	Hosts []string `json:"hosts,omitempty"`
	Room  string   `json:"room,omitempty"`
}

// WakeReply says what is being sent.
type WakeReply struct {
	Hosts  int   `json:"hosts"`
	TakesS int64 `json:"takes_s"` // seconds until the last packet is out: hosts are woken in waves
}
