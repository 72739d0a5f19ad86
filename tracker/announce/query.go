package announce

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
)

const maxQuery = 2 << 10 // bytes of a query string

// Event is the event of an announce.
type Event string

// The events of BEP 3; the empty one is the regular announce. BEP 21's paused
// counts as regular.
const (
	Regular   Event = ""
	Started   Event = "started"
	Stopped   Event = "stopped"
	Completed Event = "completed"
)

// Announce is a parsed announce.
type Announce struct {
	InfoHash [20]byte
	PeerID   [20]byte
	Port     uint16
	Left     int64 // bytes the client still lacks
	Event    Event
	Want     int        // peers wanted, 0 to 50
	IP       netip.Addr // the address the client claims, invalid when it claims none
}

// parseQuery splits a query within the limits. Every key may come once, except
// info_hash when many is set.
func parseQuery(raw string, many bool) (url.Values, error) {
	if len(raw) > maxQuery {
		return nil, fmt.Errorf("query longer than %d bytes", maxQuery)
	}
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errors.New("malformed query")
	}
	for k, vs := range v {
		if len(vs) > 1 && (!many || k != "info_hash") {
			return nil, fmt.Errorf("%.20q given %d times", k, len(vs))
		}
	}
	return v, nil
}

// ParseAnnounce reads the query string of an announce.
func ParseAnnounce(raw string) (Announce, error) {
	v, err := parseQuery(raw, false)
	if err != nil {
		return Announce{}, err
	}
	var a Announce
	if a.InfoHash, err = id20(v, "info_hash"); err != nil {
		return Announce{}, err
	}
	if a.PeerID, err = id20(v, "peer_id"); err != nil {
		return Announce{}, err
	}
	port, err := strconv.ParseUint(v.Get("port"), 10, 16)
	if err != nil || port == 0 {
		return Announce{}, errors.New("port missing or not 1..65535")
	}
	a.Port = uint16(port)
	for _, key := range []string{"uploaded", "downloaded", "left"} {
		n, err := count(v, key)
		if err != nil {
			return Announce{}, err
		}
		if key == "left" {
			a.Left = n
		}
	}
	switch e := v.Get("event"); e {
	case "", "paused", "empty":
		a.Event = Regular
	case string(Started), string(Stopped), string(Completed):
		a.Event = Event(e)
	default:
		return Announce{}, errors.New("unknown event")
	}
	if a.Want, err = want(v.Get("numwant")); err != nil {
		return Announce{}, err
	}
	if ip := v.Get("ip"); ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return Announce{}, errors.New("ip is not an address")
		}
		a.IP = addr.Unmap()
	}
	return a, nil
}

// ParseScrape reads the query string of a scrape: 1 to 16 info-hashes. Asking
// for everything (none) is not answered: the swarms are private.
func ParseScrape(raw string) ([][20]byte, error) {
	v, err := parseQuery(raw, true)
	if err != nil {
		return nil, err
	}
	hashes := v["info_hash"]
	if len(hashes) == 0 || len(hashes) > maxSwarms {
		return nil, fmt.Errorf("name 1 to %d info_hash", maxSwarms)
	}
	var out [][20]byte
	for _, h := range hashes {
		if len(h) != 20 {
			return nil, errors.New("info_hash is not 20 bytes")
		}
		out = append(out, [20]byte([]byte(h)))
	}
	return out, nil
}

// id20 returns a value of exactly 20 bytes.
func id20(v url.Values, key string) (out [20]byte, err error) {
	s := v.Get(key)
	if len(s) != len(out) {
		return out, fmt.Errorf("%s missing or not 20 bytes", key)
	}
	copy(out[:], s)
	return out, nil
}

// count returns a value that is a number of bytes; missing means 0, except left,
// without which nobody knows whether the client is complete.
func count(v url.Values, key string) (int64, error) {
	s := v.Get(key)
	if s == "" && key != "left" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s missing or not a number of bytes", key)
	}
	return n, nil
}

// want limits the number of peers asked for. -1 means the default in practice.
func want(s string) (int, error) {
	if s == "" {
		return defaultWant, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, errors.New("numwant is not a number")
	}
	if n < 0 {
		return defaultWant, nil
	}
	return int(min(n, maxWant)), nil
}
