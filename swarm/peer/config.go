package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/time/rate"

	"labswarm/swarm/peercert"
	"labswarm/swarm/wire"
)

// Storage is where pieces come from and go to: a disk on a host, the image
// library on the server. Every method may be called from several goroutines
// at once, but never twice at the same time for one piece's WritePiece.
type Storage interface {
	// Have reports whether piece is already right on the disk. It is asked
	// once per piece, by New; afterwards the Node keeps its own set.
	Have(piece int) bool
	// ReadPiece fills buf, whose length is the piece length, with the piece's
	// content as it is hashed (masked). The Node hashes it before sending.
	ReadPiece(piece int, buf []byte) error
	// WritePiece stores a piece whose SHA-1 has just been found right. buf is
	// page-aligned, one piece long and valid only until the call returns.
	WritePiece(piece int, buf []byte) error
}

// Peer is a source a Node may fetch from.
type Peer struct {
	Addr   netip.AddrPort // where it listens
	ID     string         // name in logs, Stats and callbacks, where Addr is used when empty; with TLS its certificate must say the same
	Server bool           // the seed in the server: trusted for pieces that others sent wrong
}

// name is the label of p in logs and figures.
func (p Peer) name() string {
	if p.ID != "" {
		return p.ID
	}
	return p.Addr.String()
}

// Assignment says whom a Node fetches from: the parent, and when that fails
// the fallbacks in this order. The zero Assignment has no source.
type Assignment struct {
	Parent    Peer
	Fallbacks []Peer
}

// list returns the valid sources, parent first, each address once.
func (a Assignment) list() []Peer {
	var out []Peer
	seen := map[netip.AddrPort]bool{}
	for _, p := range append([]Peer{a.Parent}, a.Fallbacks...) {
		p.Addr = unmap(p.Addr)
		if !p.Addr.IsValid() || seen[p.Addr] {
			continue
		}
		seen[p.Addr] = true
		out = append(out, p)
	}
	return out
}

// unmap turns an IPv4-mapped IPv6 address into plain IPv4, so that one peer
// has one address everywhere (safety.md 5.6).
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Config is what a Node needs. InfoHash, PeerID, Pieces, PieceLen, Hash and
// Storage are required; the rest has safe defaults.
type Config struct {
	InfoHash  [20]byte              // BEP 3 info-hash of the swarm
	PeerID    [20]byte              // BEP 20 peer id of this node
	Pieces    int                   // number of pieces
	PieceLen  int64                 // bytes of every piece, the last one included; a multiple of 16 KiB
	Hash      func(i int) [20]byte  // SHA-1 of piece i; safe for concurrent use
	Storage   Storage               // content
	Listener  net.Listener          // nil: not reachable, or reached through a Mux. Run closes it
	Seed      bool                  // hold everything, fetch nothing; Storage.Have is not asked
	Limiter   *rate.Limiter         // nil: no cap; bytes per second uploaded, burst at least wire.MaxBlock; may be shared by nodes
	AllowPeer func(netip.Addr) bool // nil: everybody; else who may connect to us
	// Pass makes every connection mutual TLS 1.3 with certificates of the swarm
	// (package peercert); it is asked for each connection, so that it may change.
	// nil: plain TCP, without a proof of who is there.
	Pass func() (*peercert.Pass, error)
	// Admit has the last word on an incoming certificate of the swarm; nil admits
	// each.
	Admit func(peercert.ID) error
	// PlainPeers lets standard clients in, which have neither TLS nor the labswarm
	// extension. Off, such a peer gets no byte of content.
	PlainPeers bool
	// PoolBuffers bounds the page-aligned piece buffers (fetching, cache and
	// reading together); 0 means 64, at least 8.
	PoolBuffers int
	// CacheBytes bounds what the RAM cache for uploads keeps, 0 means 128 MiB;
	// never more than the pool leaves after fetching.
	CacheBytes int64
	// FrameCacheBytes bounds the frames kept in RAM for uploads, outside Go's
	// heap; 0 means as much as the piece buffers, at most 64 MiB.
	FrameCacheBytes int64
	NoFrames        bool         // neither ask for compressed pieces nor send them
	MaxPeers        int          // accepted connections at once, 0 means 64
	Log             *slog.Logger // nil: silent

	// OnFront is called after every piece written: pieces held and the lowest
	// missing piece. It runs in the writing goroutine: return quickly.
	OnFront func(have, front int)
	// OnAccuse is called when a source sent a piece with a wrong hash. Nothing
	// of it reached the storage; the piece is fetched again from the server.
	OnAccuse func(piece int, from Peer)
	// Doubt is asked before the node ends with a *CorruptError, and its error ends
	// the node in place of that. nil: this host can be trusted after all, fetch
	// again; a node believes that twice. It may take its time: nothing is written
	// meanwhile. May be nil.
	Doubt func(context.Context, *CorruptError) error
	// OnSwitch is called when the node leaves a source by itself.
	OnSwitch func(from, to Peer, reason string)
}

const (
	defaultPool     = 64
	minPool         = 8
	defaultCache    = 128 << 20
	defaultFrames   = 64 << 20
	defaultMaxPeers = 64
	maxPieceLen     = 64 << 20 // bytes; images.md knows 256 KiB to 4 MiB
)

// check fills in the defaults and refuses what cannot work.
func (c *Config) check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.InfoHash == [20]byte{} {
		bad("InfoHash is zero")
	}
	if c.PeerID == [20]byte{} {
		bad("PeerID is zero")
	}
	if c.Pieces < 1 || c.Pieces > wire.MaxPieces {
		bad("Pieces is %d, want 1..%d", c.Pieces, wire.MaxPieces)
	}
	if c.PieceLen < wire.PlainBlock || c.PieceLen > maxPieceLen || c.PieceLen%wire.PlainBlock != 0 {
		bad("PieceLen is %d, want a multiple of %d up to %d", c.PieceLen, wire.PlainBlock, maxPieceLen)
	}
	if c.Hash == nil {
		bad("Hash is nil")
	}
	if c.Storage == nil {
		bad("Storage is nil")
	}
	if c.Limiter != nil && c.Limiter.Burst() < wire.MaxBlock {
		bad("Limiter burst is %d bytes, want at least %d", c.Limiter.Burst(), wire.MaxBlock)
	}
	if c.PoolBuffers == 0 {
		c.PoolBuffers = defaultPool
	}
	c.PoolBuffers = max(c.PoolBuffers, minPool)
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCache
	}
	if c.FrameCacheBytes == 0 {
		c.FrameCacheBytes = min(int64(c.PoolBuffers)*c.PieceLen, defaultFrames)
	}
	c.FrameCacheBytes = min(c.FrameCacheBytes, int64(c.Pieces)*c.PieceLen)
	if c.MaxPeers == 0 {
		c.MaxPeers = defaultMaxPeers
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(errs) > 0 {
		return fmt.Errorf("configure swarm node: %w", errors.Join(errs...))
	}
	return nil
}

// Stats is a snapshot of a Node's figures.
type Stats struct {
	Pieces int // of the torrent
	Have   int // pieces held
	Front  int // lowest missing piece, Pieces when complete

	// Plain bytes of content; a frame counts as the piece it stands for.
	BytesFromServer int64            // received from sources marked Server
	BytesFromPeers  int64            // received from the others
	BySource        map[string]int64 // the same per source name
	BytesUploaded   int64            // sent

	// Payload bytes as they travelled, compressed or not.
	WireReceived   int64
	WireUploaded   int64
	FramesReceived int // pieces written that came as frames

	RateBps  int64    // plain bytes per second received, smoothed over about a second
	Parent   string   // source we fetch from now, "" when none is connected
	Rejected []string // sources of the present assignment left by this node (lost, slow, wrong bytes), for the tracker

	HashFailures int    // pieces received with a wrong SHA-1
	ReadFailures int    // pieces the storage could not give back right
	Switches     int    // times the node left a source by itself
	SwitchReason string // of the last time, for people
	Queue        int    // pieces received and not yet written
	InFlight     int    // pieces being received
	Children     int    // connections accepted and open
}

// StorageError is the end of a Node: the storage failed twice in a row on one
// operation. The node has stopped fetching and serving.
type StorageError struct {
	Op    string // "write"
	Piece int
	Err   error // of the second attempt
}

func (e *StorageError) Error() string {
	return fmt.Sprintf("%s piece %d: %v", e.Op, e.Piece, e.Err)
}

func (e *StorageError) Unwrap() error { return e.Err }

// CorruptError is the end of a Node: a piece came wrong from the server itself
// again and again, so this host's memory or network card is the suspect.
type CorruptError struct {
	Piece    int
	Attempts int
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("piece %d has a wrong hash after %d transfers from the server: this computer's memory, processor or network card is faulty", e.Piece, e.Attempts)
}
