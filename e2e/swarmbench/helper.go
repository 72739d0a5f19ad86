package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"labswarm/tracker/announce"
)

// Lines that helpers print for the bench.
const (
	lineReady  = "READY"
	lineDone   = "DONE"   // followed by a doneNote in JSON, or nothing
	lineParent = "PARENT" // followed by a source's name
)

// Ports of the helpers.
const (
	portControl = 7440 // our control connection
	portPeer    = 7441 // our data plane
	portTracker = 7442 // announce
	portHTTP    = 8080
)

// doneNote is what a host that is done tells about itself.
type doneNote struct {
	Received int64 `json:"received"` // payload bytes received, repetitions included; 0 = not known
	Switches int   `json:"switches"`
}

// helperArgs is a helper's command line, as JSON.
type helperArgs struct {
	Role     string // seed, host, stock-seed, stock-host, http-seed, http-host, tracker
	ID       string
	Addr     netip.Addr // of this host
	Seed     netip.Addr // of host 0
	Torrent  string
	Dir      string // where the payload is, or is to go
	Expect   int    // hosts that will join late (seed only)
	Plain    bool   // let standard clients in and answer their announces (seed only)
	CPUFile  string // pprof CPU profile to write, "" = none
	Addition string // of the role
	TLS      bool   // mutual TLS between our nodes
}

// helper is main of a child process; it ends with ctx.
func helper(ctx context.Context, arg string) error {
	var a helperArgs
	if err := json.Unmarshal([]byte(arg), &a); err != nil {
		return fmt.Errorf("read helper's arguments: %w", err)
	}
	stop, err := profile(a.CPUFile)
	if err != nil {
		return err
	}
	roles := map[string]func(context.Context, helperArgs) error{
		"seed": oursSeed, "host": oursHost, "stock-seed": stockClient, "stock-host": stockClient,
		"http-seed": httpSeed, "http-host": httpHost, "tracker": listTracker,
	}
	run, ok := roles[a.Role]
	if !ok {
		return fmt.Errorf("helper role %q is not known", a.Role)
	}
	return errors.Join(run(ctx, a), stop())
}

// say prints a line for the bench in one write.
func say(word string, v any) error {
	b := []byte(word)
	if v != nil {
		j, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b = append(append(b, ' '), j...)
	}
	_, err := os.Stdout.Write(append(b, '\n'))
	return err
}

// httpSeed is the plain file server.
func httpSeed(ctx context.Context, a helperArgs) error {
	return serveHTTP(ctx, netip.AddrPortFrom(a.Addr, portHTTP), http.FileServer(http.Dir(a.Dir)))
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, addr netip.AddrPort, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	if err := say(lineReady, nil); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return srv.Close()
	}
}

// httpHost downloads the payload with Go's client.
func httpHost(ctx context.Context, a helperArgs) error {
	url := fmt.Sprintf("http://%s:%d/%s", a.Seed, portHTTP, payloadName)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(a.Dir, payloadName))
	if err != nil {
		return errors.Join(err, resp.Body.Close())
	}
	n, err := io.Copy(f, resp.Body)
	if err := errors.Join(err, resp.Body.Close(), f.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || n != resp.ContentLength {
		return fmt.Errorf("download %s: %s, %d bytes", url, resp.Status, n)
	}
	if err := say(lineDone, doneNote{Received: n}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// listTracker answers announces with every peer that has announced itself, as a
// standard tracker does: our own would send standard clients to the seed only.
func listTracker(ctx context.Context, a helperArgs) error {
	t, err := readTorrent(a.Torrent)
	if err != nil {
		return err
	}
	d := &list{infoHash: t.InfoHash, known: map[netip.AddrPort]bool{}}
	return serveHTTP(ctx, netip.AddrPortFrom(a.Addr, portTracker), announce.New(d, quiet()))
}

// list is an announce.Directory of everybody.
type list struct {
	infoHash [20]byte
	mu       sync.Mutex
	known    map[netip.AddrPort]bool
}

// Peers implements announce.Directory. The map's order mixes large swarms.
func (d *list) Peers(infoHash [20]byte, from netip.AddrPort, want int) (peers []netip.AddrPort, ok bool) {
	if infoHash != d.infoHash {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.known {
		if p != from && len(peers) < want {
			peers = append(peers, p)
		}
	}
	if !d.known[from] {
		d.known[from] = true
		if err := say("PEER", from.String()); err != nil {
			return nil, false // the bench is gone
		}
	}
	return peers, true
}

// Counts implements announce.Directory; the handler adds the clients.
func (d *list) Counts(infoHash [20]byte) (announce.Counts, bool) {
	return announce.Counts{}, infoHash == d.infoHash
}
