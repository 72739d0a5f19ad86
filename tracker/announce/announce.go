// Package announce is the HTTP tracker for standard BitTorrent clients: announce
// (BEP 3, compact lists of BEP 23 and BEP 7) and scrape (BEP 48) for private
// torrents (BEP 27). It hands out what its Directory says and never what a
// client claims about its own address: the address is the TCP source.
//
// Our own hosts do not announce here; they are directed on their control
// channel. Called by package tracker; listens only with --plain-peers.
package announce

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/torrent/bencode"
)

const (
	interval    = 30 // seconds between announces we ask for
	minInterval = 10 // seconds below which a client should not go
	defaultWant = 30
	maxWant     = 50
	maxPlain    = 1024 // plain clients remembered per swarm
	plainAge    = 3 * interval * time.Second
	maxSwarms   = 16 // info-hashes in one scrape
)

// Counts is what a scrape tells of a swarm.
type Counts struct {
	Complete   int // peers that hold everything
	Incomplete int // peers that do not, yet
	Downloaded int // peers that have completed, ever
}

// Directory knows the swarms. Its methods are safe for concurrent use.
type Directory interface {
	// Peers returns at most want addresses for the peer at the given address,
	// ok = false when there is no such swarm.
	Peers(infoHash [20]byte, from netip.AddrPort, want int) (peers []netip.AddrPort, ok bool)
	// Counts returns the figures of our own peers, ok = false when there is no
	// such swarm.
	Counts(infoHash [20]byte) (Counts, bool)
}

// Handler serves /announce and /scrape. Make it with New.
type Handler struct {
	dir Directory
	log *slog.Logger

	mu    sync.Mutex
	plain map[[20]byte]map[netip.AddrPort]client
	done  map[[20]byte]int // completed events of plain clients
}

// client is a plain client as it announced itself last.
type client struct {
	complete bool
	seen     time.Time
}

// New returns a Handler.
func New(dir Directory, log *slog.Logger) *Handler {
	return &Handler{dir: dir, log: log, plain: map[[20]byte]map[netip.AddrPort]client{}, done: map[[20]byte]int{}}
}

// ServeHTTP answers GET /announce and GET /scrape. Errors that a client can
// understand come as 200 with a bencoded failure reason (BEP 3).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	var answer any
	switch r.URL.Path {
	case "/announce":
		answer = h.announce(r, time.Now())
	case "/scrape":
		answer = h.scrape(r, time.Now())
	default:
		http.NotFound(w, r)
		return
	}
	b, err := bencode.Marshal(answer)
	if err != nil {
		h.log.Error("encode tracker answer", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	if _, err := w.Write(b); err != nil {
		h.log.Debug("send tracker answer", "peer", r.RemoteAddr, "err", err)
	}
}

// failure is the answer to a request that cannot be served.
type failure struct {
	Reason string `bencode:"failure reason"`
}

// reply answers an announce. Lists are always compact (BEP 23): a client that
// cannot read them is told so by their form.
type reply struct {
	Interval    int    `bencode:"interval"`
	MinInterval int    `bencode:"min interval"`
	Complete    int    `bencode:"complete"`
	Incomplete  int    `bencode:"incomplete"`
	Peers       string `bencode:"peers"`
	Peers6      string `bencode:"peers6,omitempty"`
}

func (h *Handler) announce(r *http.Request, now time.Time) any {
	q, err := ParseAnnounce(r.URL.RawQuery)
	if err != nil {
		return failure{err.Error()}
	}
	src, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return failure{"cannot tell where you are"}
	}
	from := netip.AddrPortFrom(src.Addr().Unmap(), q.Port)
	if q.IP.IsValid() && q.IP != from.Addr() {
		return failure{"the announced address must be the one you connect from"}
	}
	want := q.Want
	if q.Event == Stopped {
		want = 0
	}
	peers, ok := h.dir.Peers(q.InfoHash, from, want)
	if !ok {
		return failure{"unknown info_hash: this tracker serves its own images only"}
	}
	peers = append(peers[:len(peers):len(peers)], h.others(q.InfoHash, want-len(peers), now)...)
	h.note(q, from, now)
	c := h.counts(q.InfoHash, now)
	a := reply{Interval: interval, MinInterval: minInterval, Complete: c.Complete, Incomplete: c.Incomplete}
	for _, p := range peers[:min(len(peers), want)] {
		if p == from {
			continue
		}
		port := string([]byte{byte(p.Port() >> 8), byte(p.Port())})
		if ip := p.Addr().Unmap(); ip.Is4() {
			a.Peers += string(ip.AsSlice()) + port
		} else {
			a.Peers6 += string(ip.AsSlice()) + port
		}
	}
	return a
}

// others lists up to n plain clients, so that they fetch from each other and not
// all from the seed: private torrents know no other way to meet.
func (h *Handler) others(infoHash [20]byte, n int, now time.Time) (out []netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for addr, p := range h.plain[infoHash] {
		if len(out) >= n {
			break
		}
		if now.Sub(p.seen) <= plainAge {
			out = append(out, addr)
		}
	}
	return out
}

// note remembers a plain client, for the counts and for the others.
func (h *Handler) note(q Announce, from netip.AddrPort, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.plain[q.InfoHash]
	if m == nil {
		m = map[netip.AddrPort]client{}
		h.plain[q.InfoHash] = m
	}
	if q.Event == Stopped {
		delete(m, from)
		return
	}
	old, known := m[from]
	if !known && len(m) >= maxPlain {
		return
	}
	if q.Event == Completed && known && !old.complete {
		h.done[q.InfoHash]++
	}
	m[from] = client{complete: q.Left == 0, seen: now}
}

// counts adds the plain clients to the directory's figures.
func (h *Handler) counts(infoHash [20]byte, now time.Time) Counts {
	c, _ := h.dir.Counts(infoHash)
	h.mu.Lock()
	defer h.mu.Unlock()
	for addr, p := range h.plain[infoHash] {
		switch {
		case now.Sub(p.seen) > plainAge:
			delete(h.plain[infoHash], addr)
		case p.complete:
			c.Complete++
		default:
			c.Incomplete++
		}
	}
	c.Downloaded += h.done[infoHash]
	return c
}

// Forget drops what is remembered of a swarm that is gone.
func (h *Handler) Forget(infoHash [20]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.plain, infoHash)
	delete(h.done, infoHash)
}

// scrapeFile is one swarm in a scrape (BEP 48).
type scrapeFile struct {
	Complete   int `bencode:"complete"`
	Downloaded int `bencode:"downloaded"`
	Incomplete int `bencode:"incomplete"`
}

// scrapeReply lists the swarms that were asked for and exist.
type scrapeReply struct {
	Files map[string]scrapeFile `bencode:"files"`
}

func (h *Handler) scrape(r *http.Request, now time.Time) any {
	hashes, err := ParseScrape(r.URL.RawQuery)
	if err != nil {
		return failure{err.Error()}
	}
	a := scrapeReply{Files: map[string]scrapeFile{}}
	for _, ih := range hashes {
		if _, ok := h.dir.Counts(ih); !ok {
			continue
		}
		c := h.counts(ih, now)
		a.Files[string(ih[:])] = scrapeFile{Complete: c.Complete, Downloaded: c.Downloaded, Incomplete: c.Incomplete}
	}
	return a
}

// Server returns an http.Server for l's use with limits fit for strangers; the
// caller runs it and shuts it down.
func (h *Handler) Server() *http.Server {
	return &http.Server{
		Handler: h, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateNew {
				h.log.Debug("tracker connection", "peer", c.RemoteAddr().String())
			}
		},
	}
}
