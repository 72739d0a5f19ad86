// Package control carries out what the pure packages decide: it loads records,
// lets inventory, decide and job judge, commits, and only then answers. It
// speaks no protocol: server/httpapi and server/netboot call it through their
// interfaces, the daemon gives it images and swarms. Progress lives in RAM;
// everything a restart must not lose is in the store before anybody hears of it.
package control

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/event"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/netboot"
	"labswarm/server/power"
	"labswarm/server/store"
)

// ImageInfo is what a job needs to know of an image version.
type ImageInfo struct {
	api.Image
	Sector   int        // logical sector of the image, bytes
	Readback string     // hex digest that a right disk reads back as
	Windows  bool       // a partition holds Windows
	Own      []api.Mark // containers (LUKS, LVM, ...) that the image brings itself
}

// Images is the image store as seen from here.
type Images interface {
	// Find returns a version, the newest when version is "".
	Find(name, version string) (ImageInfo, error)
	// File returns one small file of a version: manifest.json, manifest.sig,
	// image.torrent, used.bin, hashes.bin, hooks.bin. nil = this version has no such file.
	File(name, version, file string) ([]byte, error)
	// List returns all usable versions.
	List() ([]api.Image, error)
}

// HostReport is a host's place in its swarm.
type HostReport struct {
	Host       string
	Room       string
	Addr       netip.AddrPort
	Have       int
	Front      int
	Done       bool
	RateBps    int64
	Parent     string
	ParentSlow bool
	Accused    []string
	LinkMbps   int    // of the interface it booted from, 0 = unknown
	Brake      string // what holds it back by its own word, see api.Progress
	Waiting    bool   // it could take more and its source has nothing for it
}

// Swarms serves image versions and directs who fetches from whom.
type Swarms interface {
	// Serve begins to seed a version; serving it already is no error.
	Serve(name, version string) error
	// Stop ends it.
	Stop(infoHash string)
	// Report takes in a host's figures.
	Report(infoHash string, r HostReport)
	// Expect tells how many hosts are booting and will join soon: somebody who
	// is done stays as their source.
	Expect(infoHash string, hosts int)
	// Leave forgets a host.
	Leave(infoHash, host string)
	// Assignment is the planner's present word for a host.
	Assignment(infoHash, host string) (api.Assignment, bool)
	// Subscribe delivers new assignments; cancel ends it.
	Subscribe(infoHash, host string) (ch <-chan api.Assignment, cancel func())
	// Sent counts what the seed sent of a version since Serve: bytes of the image,
	// and the same as they travelled.
	Sent(infoHash string) (image, wire int64)
}

// Config is what an Engine needs; all fields but Captures and the last five are required.
type Config struct {
	Store       store.Store
	Key         ed25519.PrivateKey // server key: signs orders
	Self        inventory.Self
	Images      Images
	Swarms      Swarms
	Captures    Captures // nil = none are taken
	Frames      string   // compressed cells: on and off are told to hosts, auto and "" let them decide
	BootStyle   string   // how Local is rendered for known hosts: chain or silent
	StateDir    string   // logs of agents go to StateDir/logs
	SnapshotDir string
	Log         *slog.Logger
	Recovered   *store.Recovery    // set when the store came from a snapshot
	Lab         netip.Prefix       // of the lab interface: where PCs without an address are
	CanEnrol    func() bool        // the boot folder holds the enrol initramfs; nil = it does not
	NameTaken   func(string) error // refuses names that others than hosts have; may be nil
	Patience    time.Duration      // silence after which an agent counts as gone, 0 = job.SilentAfter
	Observe     func(Transition)   // told of each change of state; must be quick; nil = nobody
	Beat        func()             // called by the job loop after each round, nil = by nobody
	PlainPeers  bool               // hosts let standard BitTorrent clients in, too
	Waker       Waker              // nil = hosts cannot be woken
	Built       time.Time          // of the program: a clock before it is wrong; zero = unknown
}

// Engine is used from many goroutines. Make it with New.
type Engine struct {
	cfg     Config
	keyID   string
	bell    event.Bell
	decoded decoded
	started time.Time

	sightings chan netboot.Sighting
	asking    chan struct{} // one token per boot question
	wakes     chan []power.Target

	edits sync.Mutex // changes of the inventory by people: one after the other

	mu       sync.Mutex
	waiting  map[string]*waiting // PCs that show a code, by client certificate
	live     map[slotKey]*live
	certs    map[string]slotKey // client certificate -> slot
	peers    map[netip.Addr]slotKey
	members  map[slotKey]memberOf    // agents that may fetch from the seed
	scopes   map[[20]byte]scopePass  // by info-hash of a live job
	boots    map[string]*bootSession // by MAC
	rivals   map[string]*rival       // by host
	sentBase map[uint64]sent         // by job
	emitted  map[string]time.Time
	tickAt   time.Time
	tick     api.Tick
	plans    planBook
	sched    schedState
}

type slotKey struct {
	job  uint64
	host string
}

// live is what is known of a slot's agent in RAM.
type live struct {
	progress api.Progress
	heard    time.Time
	moved    time.Time
	alerted  bool
	ip       netip.Addr
	peerPort int
}

// New loads what survives a restart: sessions, peers, live jobs.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	pub, ok := cfg.Key.Public().(ed25519.PublicKey)
	if !ok || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("start the job engine: no ed25519 server key")
	}
	e := &Engine{
		cfg: cfg, keyID: order.KeyID(pub), started: time.Now(),
		waiting: map[string]*waiting{}, live: map[slotKey]*live{}, certs: map[string]slotKey{}, peers: map[netip.Addr]slotKey{},
		members: map[slotKey]memberOf{}, scopes: map[[20]byte]scopePass{},
		boots: map[string]*bootSession{}, rivals: map[string]*rival{}, sentBase: map[uint64]sent{},
		emitted: map[string]time.Time{}, sightings: make(chan netboot.Sighting, sightQueue), asking: make(chan struct{}, maxAsking), wakes: make(chan []power.Target, wakeQueue),
	}
	if e.cfg.CanEnrol == nil {
		e.cfg.CanEnrol = func() bool { return false }
	}
	if e.cfg.Captures == nil {
		e.cfg.Captures = noCaptures{}
	}
	if e.cfg.Patience == 0 {
		e.cfg.Patience = job.SilentAfter
	}
	if cfg.Recovered != nil {
		if err := e.holdAll(ctx); err != nil {
			return nil, err
		}
	}
	if err := e.resumeImport(ctx); err != nil {
		return nil, err
	}
	return e, e.restore(ctx)
}

// restore rebuilds the indexes and serves the images of live jobs.
func (e *Engine) restore(ctx context.Context) error {
	jobs, err := e.liveJobs(ctx)
	if err != nil {
		return err
	}
	live := map[uint64]bool{}
	for _, js := range jobs {
		live[js.job.ID] = true
	}
	e.cfg.Captures.Keep(func(id uint64) bool { return live[id] })
	for _, js := range jobs {
		for i := range js.slots {
			e.index(&js.job, &js.slots[i])
		}
		if js.job.IsCapture() {
			continue
		}
		err := e.openScope(&js.job)
		if err == nil {
			err = e.cfg.Swarms.Serve(js.job.Image, js.job.Version)
		}
		if err != nil {
			e.emit(ctx, api.Event{Level: "error", Code: "image_unserved", Job: js.job.ID, Room: js.job.Room,
				Text: fmt.Sprintf("job %d goes on without the server as source: %v", js.job.ID, err)})
		}
	}
	return nil
}

// holdAll puts live jobs on HELD: commits after the snapshot are lost, so
// nobody can say what their hosts have done since.
func (e *Engine) holdAll(ctx context.Context) error {
	r := e.cfg.Recovered
	e.emit(ctx, api.Event{Level: "error", Code: "store_restored",
		Text: fmt.Sprintf("the state came back from the copy %s (%s); live jobs are held", r.Snapshot, r.Cause)})
	jobs, err := e.liveJobs(ctx)
	if err != nil {
		return err
	}
	for _, js := range jobs {
		for _, s := range js.slots {
			ev := job.Hold{Code: api.CodeHeld, Text: "the server's state was restored from a copy: check this host, then cancel the job"}
			if _, err := e.apply(ctx, slotKey{js.job.ID, s.Host}, ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// memberOf is an agent's place in a swarm.
type memberOf struct {
	bootID   string
	infoHash string
}

// index makes a slot's session findable by certificate and address.
func (e *Engine) index(j *job.Job, s *job.Slot) {
	if s.Session == nil {
		return
	}
	k := slotKey{s.Job, s.Host}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.certs[s.Session.Cert] = k
	l := e.liveOf(k)
	l.peerPort = s.Session.PeerPort
	if gone(*s) {
		return
	}
	e.members[k] = memberOf{s.Session.BootID, j.InfoHash}
	if ip, err := netip.ParseAddr(s.Session.IP); err == nil {
		l.ip = ip.Unmap()
		e.peers[l.ip] = k
	}
}

// liveOf returns the RAM record of a slot; e.mu is held.
func (e *Engine) liveOf(k slotKey) *live {
	l := e.live[k]
	if l == nil {
		l = &live{}
		e.live[k] = l
	}
	return l
}

// silent reports whether the slot's agent was not heard of for Patience.
// After a restart an agent is given that long to speak up.
func (e *Engine) silent(k slotKey, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard := e.started
	if l := e.live[k]; l != nil && l.heard.After(heard) {
		heard = l.heard
	}
	return now.Sub(heard) >= e.cfg.Patience
}

// Bell wakes readers of the event log.
func (e *Engine) Bell() *event.Bell { return &e.bell }

const prefixLive = "livejobs/"

// Keys of the records.
func keyLive(id uint64) string      { return fmt.Sprintf("%s%016x", prefixLive, id) }
func keyJob(id uint64) string       { return fmt.Sprintf("jobs/%016x", id) }
func keySlots(id uint64) string     { return fmt.Sprintf("slots/%016x/", id) }
func keySlot(k slotKey) string      { return keySlots(k.job) + strings.ToLower(k.host) }
func keyHostJob(host string) string { return "hostjob/" + strings.ToLower(host) }
func keyIdem(key string) string     { return "idem/" + key }
func getJSON(tx store.Tx, key string, into any) (bool, error) {
	raw, err := tx.Get(key)
	if err != nil || raw == nil {
		return false, err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	return true, nil
}

func putJSON(tx store.Tx, key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return tx.Put(key, raw)
}

func getJob(tx store.Tx, id uint64) (*job.Job, error) {
	var j job.Job
	ok, err := getJSON(tx, keyJob(id), &j)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, notFound("job %d is not known", id)
	}
	return &j, nil
}

func getSlot(tx store.Tx, k slotKey) (*job.Slot, error) {
	var s job.Slot
	ok, err := getJSON(tx, keySlot(k), &s)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, notFound("host %s is not in job %d", k.host, k.job)
	}
	return &s, nil
}

func getSlots(tx store.Tx, id uint64) ([]job.Slot, error) {
	var out []job.Slot
	for key, raw := range tx.Scan(keySlots(id), "", 0) {
		var s job.Slot
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// hostSlot returns the newest slot of a host, nil when it never had one.
func hostSlot(tx store.Tx, host string) (*job.Job, *job.Slot, error) {
	var id uint64
	ok, err := getJSON(tx, keyHostJob(host), &id)
	if err != nil || !ok {
		return nil, nil, err
	}
	j, err := getJob(tx, id)
	if err != nil {
		return nil, nil, err
	}
	s, err := getSlot(tx, slotKey{id, host})
	return j, s, err
}
