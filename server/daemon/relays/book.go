// Package relays is the server's book of relays: who may be one (records in the
// store), who is there (in RAM, by their reports), which images each is to hold,
// and which of them stand in the plan beside the server. It opens no connection.
// Called by server/daemon; server/httpapi passes requests on.
package relays

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/daemon/control"
	"labswarm/server/store"
	"labswarm/tracker/registry"
)

const (
	interval  = 2 * time.Second // between two reports of a relay
	maxRelays = 64
	keyPrefix = "relays/"
	tokenHead = "lsr-" // lets people and secret scanners recognise one

	// ServerName is what the server's own seed is called; no relay may be.
	ServerName = "server"
)

// Images is the image store as seen from here.
type Images interface {
	// Latest returns the newest version, "" when there is no such image.
	Latest(name string) (string, error)
	Find(name, version string) (control.ImageInfo, error)
	File(name, version, file string) ([]byte, error)
}

// Swarms serves image versions and holds the plan.
type Swarms interface {
	// Lend serves a version to relays, whether a job needs it or not; Return
	// ends that.
	Lend(name, version string) error
	Return(infoHash string)
	// SetRelays names the relays that hold a version.
	SetRelays(infoHash string, seeds []registry.Seed)
	// Leave cuts the connections of a relay that is sent away.
	Leave(infoHash, name string)
	// Seed is the server's own seed.
	Seed() api.PeerRef
}

// Jobs is what the book asks about deployments.
type Jobs interface {
	// LiveImages lists the versions of live jobs.
	LiveImages(ctx context.Context) ([]api.Image, error)
	// RelayPass is a relay's certificate in the present run of a swarm.
	RelayPass(infoHash, name string, key ed25519.PublicKey) (api.RelayPass, error)
	// HasHost tells whether a host has this name, in any case.
	HasHost(ctx context.Context, name string) (bool, error)
	// Note stores an event.
	Note(ctx context.Context, e api.Event)
}

// Config is what a Book needs; every field is required.
type Config struct {
	Store     store.Store
	Images    Images
	Swarms    Swarms
	Jobs      Jobs
	ImageKeys [][]byte // public keys that manifests are signed with
	ServerKey []byte   // public key that relays pin
	Server    string   // address and port of the agent listener
	Log       *slog.Logger
}

// Book is safe for concurrent use. Make it with New.
type Book struct {
	cfg Config

	applying sync.Mutex // serialises apply, which calls Swarms
	lent     map[string]bool
	told     map[string][]registry.Seed

	mu     sync.Mutex
	relays map[string]*relay   // by name
	tokens map[[32]byte]string // SHA-256 of the token -> name
}

// record is a relay in the store.
type record struct {
	Name      string    `json:"name"`
	TokenHash string    `json:"token_hash"` // hex SHA-256; the token has 256 random bits, so it needs no salt
	Created   time.Time `json:"created"`
}

// relay is what is known of one.
type relay struct {
	rec    record
	seen   time.Time // zero: not yet in this process
	alive  bool
	addr   netip.AddrPort
	report api.RelayReport
	wants  []api.RelayWant
	miss   []string
}

// New loads the relays.
func New(ctx context.Context, cfg Config) (*Book, error) {
	b := &Book{cfg: cfg, relays: map[string]*relay{}, tokens: map[[32]byte]string{}, lent: map[string]bool{}, told: map[string][]registry.Seed{}}
	err := cfg.Store.View(ctx, func(tx store.Tx) error {
		for key, raw := range tx.Scan(keyPrefix, "", 0) {
			var r record
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("read %s: %w", key, err)
			}
			if err := b.enter(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load relays: %w", err)
	}
	return b, nil
}

// enter takes a record into RAM; b.mu is held or not needed yet.
func (b *Book) enter(r record) error {
	raw, err := hex.DecodeString(r.TokenHash)
	if err != nil || len(raw) != sha256.Size {
		return fmt.Errorf("relay %s: its token's hash is damaged", r.Name)
	}
	b.tokens[[32]byte(raw)] = r.Name
	b.relays[r.Name] = &relay{rec: r}
	return nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,47}$`)

// Add makes a relay and its token.
func (b *Book) Add(ctx context.Context, name string) (api.RelayToken, error) {
	if !nameForm.MatchString(name) || name == ServerName {
		return api.RelayToken{}, fail(http.StatusUnprocessableEntity, api.CodeUsage, "add relay %q: a name is 1 to 48 of a-z, 0-9, dot and hyphen, and not %q", name, ServerName)
	}
	switch taken, err := b.cfg.Jobs.HasHost(ctx, name); {
	case err != nil:
		return api.RelayToken{}, err
	case taken:
		return api.RelayToken{}, fail(http.StatusConflict, api.CodeConflict, "add relay %s: a host has that name; hosts and relays share the plan, so choose another", name)
	}
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return api.RelayToken{}, fmt.Errorf("make token: %w", err)
	}
	token := tokenHead + base64.RawURLEncoding.EncodeToString(secret[:])
	sum := sha256.Sum256([]byte(token))
	rec := record{Name: name, TokenHash: hex.EncodeToString(sum[:]), Created: time.Now().UTC().Truncate(time.Second)}
	raw, err := json.Marshal(rec)
	if err != nil {
		return api.RelayToken{}, fmt.Errorf("encode relay: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.relays[name] != nil {
		return api.RelayToken{}, fail(http.StatusConflict, api.CodeConflict, "add relay %s: there is one already; `labswarm relay rm %s` ends its token", name, name)
	}
	if len(b.relays) >= maxRelays {
		return api.RelayToken{}, fail(http.StatusConflict, api.CodeConflict, "add relay %s: there are %d already", name, maxRelays)
	}
	if err := b.cfg.Store.Update(ctx, func(tx store.Tx) error { return tx.Put(keyPrefix+name, raw) }); err != nil {
		return api.RelayToken{}, fmt.Errorf("store relay %s: %w", name, err)
	}
	return api.RelayToken{Name: name, Token: token, ServerKey: Fingerprint(b.cfg.ServerKey), Server: b.cfg.Server}, b.enter(rec)
}

// Fingerprint is how people hand on a server's key.
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Remove ends a relay's token at once: it leaves the plan and gets nothing more.
func (b *Book) Remove(ctx context.Context, name string) error {
	b.mu.Lock()
	r := b.relays[name]
	if r == nil {
		b.mu.Unlock()
		return fail(http.StatusNotFound, api.CodeNotFound, "remove relay %q: there is none; `labswarm relay ls` shows them", name)
	}
	if err := b.cfg.Store.Update(ctx, func(tx store.Tx) error { return tx.Delete(keyPrefix + name) }); err != nil {
		b.mu.Unlock()
		return fmt.Errorf("remove relay %s: %w", name, err)
	}
	delete(b.relays, name)
	for sum, n := range b.tokens {
		if n == name {
			delete(b.tokens, sum)
		}
	}
	wants := r.wants
	b.mu.Unlock()
	b.apply()
	for _, w := range wants {
		b.cfg.Swarms.Leave(w.InfoHash, name)
	}
	b.cfg.Jobs.Note(ctx, api.Event{Level: "info", Code: "relay_removed", Text: "relay " + name + " is removed; its token is void"})
	return nil
}

// List returns all relays by name.
func (b *Book) List(context.Context) ([]api.Relay, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []api.Relay{}
	for _, r := range b.relays {
		v := api.Relay{Name: r.rec.Name, Created: r.rec.Created, Seen: r.seen.UTC(), Alive: r.alive, Images: slices.Clone(r.report.Images),
			Room: r.report.Room, LinkMbps: r.report.LinkMbps, Version: r.report.Version, Missing: r.miss, Error: r.report.Error}
		if r.seen.IsZero() {
			v.Seen = time.Time{}
		} else {
			v.Addr = r.addr.String()
		}
		if v.Images == nil {
			v.Images = []api.RelayImage{}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b api.Relay) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Has tells whether a relay has this name.
func (b *Book) Has(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.relays[strings.ToLower(name)] != nil
}

// Allow reports whether an address is that of a relay that is alive.
func (b *Book) Allow(ip netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.relays {
		if r.alive && r.addr.Addr() == ip.Unmap() {
			return true
		}
	}
	return false
}

// Admit says why a relay may not fetch a version from the server now, nil when
// it may.
func (b *Book) Admit(infoHash [20]byte, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.relays[name]
	if r == nil || !r.alive {
		return fmt.Errorf("relay %q is not there", name)
	}
	if ih := hex.EncodeToString(infoHash[:]); !slices.ContainsFunc(r.wants, func(w api.RelayWant) bool { return w.InfoHash == ih }) {
		return fmt.Errorf("relay %s is not to hold %s", name, ih)
	}
	return nil
}

// auth returns the relay that a token belongs to; b.mu is held.
func (b *Book) auth(token string) (*relay, error) {
	// The table is keyed by the hash of 256 random bits: how long a lookup takes
	// says nothing about a token.
	if r := b.relays[b.tokens[sha256.Sum256([]byte(token))]]; r != nil && strings.HasPrefix(token, tokenHead) {
		return r, nil
	}
	return nil, fail(http.StatusUnauthorized, api.CodeBadToken, "no relay has this token: `labswarm relay add NAME` on the server makes one, `labswarm relay rm` ends it")
}

func fail(status int, code, format string, a ...any) error {
	return &api.Problem{Status: status, Title: strings.ToLower(http.StatusText(status)), Code: code, Detail: fmt.Sprintf(format, a...)}
}
