package main

import (
	_ "embed" // lt.py
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed lt.py
var ltScript []byte

// child is one process of a contender.
type child struct {
	name  string
	args  []string
	gated bool   // it loads what it needs, prints GATE and waits for a line; else a shell does so in its place
	ready string // word of the line it prints when hosts may start; "" = a moment later
}

// env is what a contender needs to know to write its command lines.
type env struct {
	self    string // this program, for helpers
	stock   string // the program of the stock client
	dir     string // work directory on tmpfs
	payload payload
	sc      scenario
	n       int
	late    int    // hosts that join late
	zip     bool   // ours sends compressed cells
	tls     bool   // ours speaks TLS
	pprof   string // directory for CPU profiles, "" = none
	resume  bool   // hosts look for good cells on their disks
	logs    string // directory for what our seed and hosts log, "" = none
}

// scheme is a contender.
type scheme struct {
	name     string
	about    string
	missing  func() string                // what is not installed, "" = nothing
	seed     func(e env) ([]child, error) // of namespace 0, in this order
	host     func(e env, i int) (child, error)
	exitDone bool    // a host is done when it ends with 0, and not by its DONE line
	early    bool    // nobody can join late
	ours     bool    // what the issue sets limits for
	zip, tls bool    // of ours
	pace     float64 // ratio to expect, for the estimate of time left; star: times N
	star     bool
}

// outDir is where host i writes.
func (e env) outDir(i int) string { return filepath.Join(e.dir, "out", strconv.Itoa(i)) }

// hostID is the name of host i.
func hostID(i int) string { return fmt.Sprintf("h%03d", i) }

// helper is a child in one of this program's own roles.
func (e env) helper(role string, i int, ready string, change func(*helperArgs)) (child, error) {
	a := helperArgs{Role: role, ID: hostID(i), Addr: addrOf(i), Seed: addrOf(0), Torrent: e.payload.imageTorrent(), Dir: e.outDir(i)}
	if i == 0 {
		a.ID, a.Dir = "seed", e.payload.dir
	}
	if change != nil {
		change(&a)
	}
	b, err := json.Marshal(a)
	return child{name: e.self, args: []string{helperWord, string(b)}, gated: true, ready: ready}, err
}

// announceURL is where the seed's namespace answers announces.
func announceURL() string {
	return "http://" + netip.AddrPortFrom(addrOf(0), portTracker).String() + "/announce"
}

// withTracker puts a standard tracker before the seed, so that the seed is the
// first to announce itself and the hosts start when it has.
func (e env) withTracker(seed child) ([]child, error) {
	t, err := e.helper("tracker", 0, lineReady, nil)
	if err != nil {
		return nil, err
	}
	return []child{t, seed}, nil
}

func installed() string { return "" }

// needsTool says what to install when a program is not there.
func needsTool(tool, pkg string) func() string {
	return func() string {
		if _, err := exec.LookPath(tool); err != nil {
			return "not installed: " + tool + " (package " + pkg + ")"
		}
		return ""
	}
}

// schemes lists all contenders in the table's order.
func schemes() []scheme {
	lt := func(name, mode, about string) scheme {
		return scheme{name: name, about: about, pace: 2.4,
			missing: func() string {
				if python() == "" {
					return "not installed: libtorrent for Python (package python3-libtorrent)"
				}
				return ""
			},
			seed: func(e env) ([]child, error) {
				s, err := ltChild(e, 0, mode)
				if err != nil {
					return nil, err
				}
				return e.withTracker(s)
			},
			host: func(e env, i int) (child, error) { return ltChild(e, i, mode) },
		}
	}
	ours := func(name, about string, zip, tls bool, pace float64) scheme {
		return scheme{name: name, about: about, missing: installed, seed: oursChildren(false), host: oursChild, ours: true, zip: zip, tls: tls, pace: pace}
	}
	return []scheme{
		ours("ours", "relay chain steered by the real tracker, cells plain, no TLS", false, false, 1.1),
		ours("ours-tls", "the same under mutual TLS", false, true, 1.1),
		ours("ours-z", "the same as ours with compressed cells", true, false, 0.5),
		ours("ours-tls-z", "with both, as the product does it", true, true, 0.5),
		lt("libtorrent", "default", "python3-libtorrent, default settings"),
		lt("libtorrent-tuned", "tuned", "python3-libtorrent without uTP, fastest-upload choker"),
		{name: "aria2", about: "aria2c among themselves behind a standard tracker", missing: needsTool("aria2c", "aria2"), pace: 2,
			seed: func(e env) ([]child, error) { return e.withTracker(ariaChild(e, 0)) },
			host: func(e env, i int) (child, error) { return ariaChild(e, i), nil }},
		{name: "aria2-ours", about: "aria2c as plain clients of our seed and our tracker's announce", missing: needsTool("aria2c", "aria2"), pace: 1.1, star: true,
			seed: oursChildren(true), host: func(e env, i int) (child, error) { return ariaChild(e, i), nil }},
		{name: "anacrolix", about: "stock anacrolix/torrent Client, default settings, TCP", missing: installed, pace: 2.3,
			seed: func(e env) ([]child, error) { return e.withTracker(stockChild(e, 0)) },
			host: func(e env, i int) (child, error) { return stockChild(e, i), nil }},
		{name: "udpcast", about: "multicast, default settings", missing: needsTool("udp-sender", "udpcast"), exitDone: true, early: true, pace: 1.5,
			seed: func(e env) ([]child, error) {
				return []child{{name: "udp-sender", args: []string{"--file", e.payload.file(), "--interface", ifName,
					"--min-receivers", strconv.Itoa(e.n), "--nokbd", "--no-progress"}}}, nil
			},
			host: func(e env, i int) (child, error) {
				// Its own way to find the sender, 224.0.0.1, is not answered here.
				return child{name: "udp-receiver", args: []string{"--file", filepath.Join(e.outDir(i), payloadName),
					"--mcast-rdv-address", addrOf(0).String(), "--interface", ifName, "--nokbd", "--no-progress"}}, nil
			}},
		{name: "http", about: "one HTTP server, Go's client", missing: installed, pace: 1.1, star: true,
			seed: func(e env) ([]child, error) {
				s, err := e.helper("http-seed", 0, lineReady, nil)
				return []child{s}, err
			},
			host: func(e env, i int) (child, error) { return e.helper("http-host", i, "", nil) }},
	}
}

// stockChild is the stock client, a program of its own: its packages would count
// in the memory of our hosts.
func stockChild(e env, i int) child {
	c := child{name: e.stock, args: []string{e.payload.torrent(), e.outDir(i), addrOf(i).String(), "host"}, gated: true}
	if i == 0 {
		c.args[1], c.args[3], c.ready = e.payload.dir, "seed", lineDone
	}
	return c
}

func oursChildren(plain bool) func(e env) ([]child, error) {
	return func(e env) ([]child, error) {
		s, err := e.helper("seed", 0, lineReady, func(a *helperArgs) {
			a.Plain, a.Expect, a.Frames, a.TLS = plain, e.late, e.zip, e.tls
			a.CPUFile, a.LogFile = e.file(e.pprof, 0, "pprof"), e.file(e.logs, 0, "log")
			a.LinkMbit = e.sc.mbit
		})
		return []child{s}, err
	}
}

func oursChild(e env, i int) (child, error) {
	role := "host"
	if e.sc.isBad(i) {
		role = "bad"
	}
	return e.helper(role, i, "", func(a *helperArgs) {
		a.Frames, a.TLS, a.Resume = e.zip, e.tls, e.resume
		a.CPUFile, a.LogFile = e.file(e.pprof, i, "pprof"), e.file(e.logs, i, "log")
		a.Room, a.Fresh, a.Watch = "room"+strconv.Itoa(e.sc.roomOf(i)), e.sc.fresh, e.sc.bad > 0
		if e.sc.isBad(i) {
			a.Share, a.Payload = e.sc.badShare, e.payload.file()
		}
		a.LinkMbit = e.sc.mbit
		if i == e.sc.slowHost() && e.sc.disturbance == disturbSlowKnown {
			a.LinkMbit = max(a.LinkMbit/slowBy, 1) // whole Mbit/s are reported, and 0 is unknown
		}
	})
}

// file is where host i's profile or log goes, "" when none is wanted.
func (e env) file(dir string, i int, suffix string) string {
	if dir == "" {
		return ""
	}
	name := "ours"
	if e.tls {
		name += "-tls"
	}
	if e.zip {
		name += "-z"
	}
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%s-h%d.%s", strings.ReplaceAll(e.sc.name, " ", "_"), e.sc.data, name, i, suffix))
}

// ariaChild is aria2c with its defaults; what would leave the room is off. It
// seeds on when it is done, and its hook says so.
func ariaChild(e env, i int) child {
	c := child{name: "aria2c", args: []string{"--no-conf", "--quiet", "--dir=" + e.outDir(i), "--file-allocation=none", "--seed-ratio=0.0",
		"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--listen-port=6881",
		"--on-bt-download-complete=" + filepath.Join(e.dir, "done.sh")}}
	if i == 0 {
		c.ready = linePeer
		c.args = append(c.args, "--dir="+e.payload.dir, "--bt-seed-unverified=true")
	}
	c.args = append(c.args, e.payload.torrent())
	return c
}

// python is the interpreter that has libtorrent; Debian's own comes second
// because another may stand before it in PATH.
func python() string {
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if command(bg, "", p, "-c", "import libtorrent") == nil {
			return p
		}
	}
	return ""
}

func ltChild(e env, i int, mode string) (child, error) {
	dir, role, ready := e.outDir(i), "host", ""
	if i == 0 {
		dir, role, ready = e.payload.dir, "seed", linePeer
	}
	py := python()
	if py == "" {
		return child{}, fmt.Errorf("start libtorrent: no Python with it")
	}
	return child{name: py, args: []string{filepath.Join(e.dir, "lt.py"), e.payload.torrent(), dir, addrOf(i).String(), role, mode}, gated: true, ready: ready}, nil
}

// writeScripts puts the contenders' scripts into the work directory.
func writeScripts(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "lt.py"), ltScript, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "done.sh"), []byte("#!/bin/sh\necho "+lineDone+"\n"), 0o700)
}
