package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/client"
)

const (
	benchAgents = 500
	benchPaced  = 10 * time.Second // of one report a second and agent
	benchFlat   = 20_000           // reports as fast as they go
	enrolPace   = 25 * time.Millisecond
)

// loadPlan is what the load's process is told, loadReply what it says after
// each phase.
type (
	loadPlan struct {
		Server string     `json:"server"`
		Hosts  []api.Host `json:"hosts"`
	}
	loadReply struct {
		Phase   string  `json:"phase"`
		Reports int     `json:"reports"`
		Failed  int     `json:"failed"`
		Seconds float64 `json:"seconds"`
		P50Ms   float64 `json:"p50_ms"`
		P99Ms   float64 `json:"p99_ms"`
	}
	benchLine struct {
		loadReply
		Consoles    int     `json:"consoles"`
		CPUSeconds  float64 `json:"server_cpu_s"`
		CPUUsReport float64 `json:"server_cpu_us_per_report"`
		CorePercent float64 `json:"core_percent"`         // of one core, during the phase
		CoreAt500   float64 `json:"core_percent_at_500s"` // what 500 reports a second would take
		RSSBytes    int64   `json:"server_rss_bytes"`
	}
)

// BenchmarkReports measures what the reports of 500 agents cost the server: real
// TLS connections that stay open, from a process of their own, so that the
// server's CPU time is the server's. `make bench-api` runs it.
func BenchmarkReports(b *testing.B) {
	if plan := os.Getenv("DAEMON_LOAD"); plan != "" {
		loadChild(plan)
	}
	for range b.N {
		var lines []benchLine
		var size benchSize
		for _, consoles := range []int{0, 3} {
			s := newSite(b)
			lines = append(lines, benchReports(b, s, consoles)...)
			size = measureSize(b, s)
		}
		last := lines[0]
		b.ReportMetric(last.CPUUsReport, "cpu-µs/report")
		b.ReportMetric(last.CorePercent, "%core")
		fmt.Printf("%-10s %8s %8s %8s %8s %8s %12s %8s %10s\n", "phase", "consoles", "reports", "per s", "p50 ms", "p99 ms", "cpu µs/report", "% core", "% at 500/s")
		for _, l := range lines {
			fmt.Printf("%-10s %8d %8d %8.0f %8.2f %8.2f %12.1f %8.1f %10.1f\n", l.Phase, l.Consoles, l.Reports, float64(l.Reports)/l.Seconds, l.P50Ms, l.P99Ms, l.CPUUsReport, l.CorePercent, l.CoreAt500)
		}
		fmt.Printf("state %.1f MB, restart to ready %.0f ms, event to console %.1f ms (middle of 21), server's memory %d MiB at most\n",
			float64(size.StateBytes)/1e6, size.RestartMs, size.EventMs, size.RSSBytes>>20)
		out := struct {
			Size   benchSize   `json:"size"`
			Agents int         `json:"agents"`
			Cores  int         `json:"cores"`
			Go     string      `json:"go"`
			Lines  []benchLine `json:"lines"`
		}{size, benchAgents, runtime.NumCPU(), runtime.Version(), lines}
		raw, err := json.Marshal(out)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Printf("%s\n", raw)
		if path := os.Getenv("BENCH_OUT"); path != "" {
			if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// benchReports runs both phases with some consoles watching.
func benchReports(b *testing.B, s *site, consoles int) []benchLine {
	plan := loadPlan{Server: s.srv.agents.Addr().String()}
	for i := range benchAgents {
		h, err := s.cli.PutHost(b.Context(), api.Host{Name: fmt.Sprintf("pc%03d", i), Room: "r1", MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", i/256, i%256), UUID: fmt.Sprintf("00112233-4455-6677-8899-aabbcc%06x", i)})
		if err != nil {
			b.Fatal(err)
		}
		plan.Hosts = append(plan.Hosts, h)
	}
	s.createJob()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range consoles {
		wg.Go(func() {
			c := client.New(filepath.Join(s.dir, "labswarm.sock"))
			defer c.Close()
			_ = c.Follow(ctx, client.Latest, func(api.Event) {}, func(api.Tick) {}, nil) // ends with ctx
		})
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "plan.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkReports$", "-test.benchtime=1x")
	cmd.Env, cmd.Stderr = append(os.Environ(), "DAEMON_LOAD="+file), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it ends with its standard input
	dec := json.NewDecoder(out)
	var lines []benchLine
	for _, phase := range []string{"enrol", "paced", "flat"} {
		cpu := cpuSeconds(b)
		if _, err := io.WriteString(in, phase+"\n"); err != nil {
			b.Fatal(err)
		}
		var l benchLine
		if err := dec.Decode(&l.loadReply); err != nil || l.Failed > 0 {
			b.Fatalf("%s: %+v, %v", phase, l, err)
		}
		l.Consoles, l.CPUSeconds = consoles, cpuSeconds(b)-cpu
		l.CPUUsReport = l.CPUSeconds / float64(l.Reports) * 1e6
		l.CorePercent, l.CoreAt500 = 100*l.CPUSeconds/l.Seconds, l.CPUUsReport*benchAgents/1e4
		l.RSSBytes = rss(b)
		lines = append(lines, l)
	}
	if err := in.Close(); err != nil {
		b.Fatal(err)
	}
	return lines[1:]
}

// benchSize is what a job of 500 hosts takes up.
type benchSize struct {
	StateBytes int64   `json:"state_bytes"`
	RestartMs  float64 `json:"restart_ms"` // from the beginning of the start to an answer on the admin socket
	EventMs    float64 `json:"event_ms"`   // from a change to the console that is told of it
	RSSBytes   int64   `json:"server_rss_bytes"`
}

func measureSize(b *testing.B, s *site) benchSize {
	out := benchSize{RSSBytes: rss(b)}
	st, err := os.Stat(filepath.Join(s.dir, "labswarm.db"))
	if err != nil {
		b.Fatal(err)
	}
	out.StateBytes = st.Size()
	s.end()
	begun := time.Now()
	s.start()
	if j, err := s.cli.Jobs(b.Context()); err != nil || len(j) != 1 || len(j[0].Slots) != benchAgents {
		b.Fatalf("after the restart: %d jobs, %v", len(j), err)
	}
	out.RestartMs = time.Since(begun).Seconds() * 1e3
	out.EventMs = eventDelay(b, s)
	return out
}

// eventDelay is the middle of 21 changes.
func eventDelay(b *testing.B, s *site) float64 {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	seen := make(chan string, 100)
	c := client.New(filepath.Join(s.dir, "labswarm.sock"))
	defer c.Close()
	ready := make(chan struct{}, 1)
	go func() {
		_ = c.Follow(ctx, client.Latest, func(e api.Event) { seen <- e.Host }, func(api.Tick) {
			select {
			case ready <- struct{}{}:
			default:
			}
		}, nil) // ends with ctx
	}()
	<-ready
	var took []float64
	for i := range 21 {
		name := fmt.Sprintf("new%02d", i)
		begun := time.Now()
		if _, err := s.cli.PutHost(b.Context(), api.Host{Name: name, Room: "r2", MAC: fmt.Sprintf("52:54:00:aa:00:%02x", i)}); err != nil {
			b.Fatal(err)
		}
		for host := range seen {
			if host == name {
				break
			}
		}
		took = append(took, time.Since(begun).Seconds()*1e3)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func usage(b *testing.B) (u syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u
}

func cpuSeconds(b *testing.B) float64 {
	u := usage(b)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func rss(b *testing.B) int64 { u := usage(b); return u.Maxrss << 10 }

// loadAgent is one agent of the load.
type loadAgent struct {
	http *http.Client
	base string
	boot string
	host api.Host
	sent int
	from string // its parent, as the last answer said
}

func (a *loadAgent) post(route string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(context.Background(), "POST", a.base+route, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	res, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %d %s", route, res.StatusCode, text)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

func (a *loadAgent) report() error {
	a.sent++
	var rep api.ProgressReply
	err := a.post(api.RouteProgress, api.Progress{BootID: a.boot, State: api.StateChecking, InSwarm: true, CellsTotal: 30_000, CellsHave: a.sent, PhaseDone: int64(a.sent), PhaseTotal: 30_000,
		RateBps: 90 << 20, Front: a.sent, Parent: a.from}, &rep)
	if rep.Assignment != nil {
		a.from = rep.Assignment.Parent.HostID
	}
	return err
}

// loadChild is the process of the agents: it does a phase for each line of its
// standard input.
func loadChild(path string) {
	var plan loadPlan
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &plan)
	}
	agents := make([]*loadAgent, len(plan.Hosts))
	for i, h := range plan.Hosts {
		agents[i] = newLoadAgent(plan.Server, h, i)
	}
	for err == nil {
		var phase string
		if _, err = fmt.Scanln(&phase); err != nil {
			break
		}
		reply := loadPhase(phase, agents)
		err = json.NewEncoder(os.Stdout).Encode(reply)
	}
	if !errors.Is(err, io.EOF) && err.Error() != "unexpected newline" {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func newLoadAgent(server string, h api.Host, i int) *loadAgent {
	t := loadTB{}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/200), byte(1+i%200))}}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{clientCert(t, ed25519Key(t))}}
	tr := &http.Transport{TLSClientConfig: conf, DialContext: d.DialContext, MaxIdleConnsPerHost: 1}
	return &loadAgent{http: &http.Client{Transport: tr, Timeout: 20 * time.Second}, base: "https://" + server, boot: rand16(t), host: h}
}

// loadTB ends the process of the load where a test would end.
type loadTB struct{ testing.TB }

func (loadTB) Helper()        {}
func (loadTB) Fatal(a ...any) { fmt.Fprintln(os.Stderr, a...); os.Exit(1) }

// loadPhase does one phase with all agents.
func loadPhase(phase string, agents []*loadAgent) loadReply {
	r := loadReply{Phase: phase}
	var mu sync.Mutex
	var took []time.Duration
	timed := func(fn func() error) {
		begun := time.Now()
		err := fn()
		d := time.Since(begun)
		mu.Lock()
		defer mu.Unlock()
		r.Reports++
		if took = append(took, d); err != nil {
			r.Failed++
			fmt.Fprintln(os.Stderr, "load:", err)
		}
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for i, a := range agents {
		switch phase {
		case "enrol":
			time.Sleep(enrolPace) // the server takes 50 a second
			wg.Go(func() { timed(a.enrol); timed(a.report) })
		case "paced":
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second / time.Duration(len(agents)))
				for tick := time.NewTicker(time.Second); time.Since(begun) < benchPaced; <-tick.C {
					timed(a.report)
				}
			})
		case "flat":
			wg.Go(func() {
				for range benchFlat / len(agents) {
					timed(a.report)
				}
			})
		}
	}
	wg.Wait()
	r.Seconds = time.Since(begun).Seconds()
	slices.Sort(took)
	ms := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1e3 }
	r.P50Ms, r.P99Ms = ms(0.5), ms(0.99)
	return r
}

func (a *loadAgent) enrol() error {
	ev := api.Evidence{UUID: a.host.UUID, Serial: "SYS-" + a.host.Name, NICs: []api.NIC{{Name: "eth0", MAC: a.host.MAC, Bus: "virtio", Boot: true, SpeedMbps: 1000}}, Firmware: "uefi",
		Disks: []api.Disk{{Name: "vda", Serial: "DISK-" + a.host.Name, Model: "Q", Bus: "virtio", Bytes: 8 << 20, Sector: sector}}}
	var rep api.EnrolReply
	err := a.post(api.RouteEnrol, api.EnrolRequest{BootID: a.boot, Nonce: a.boot, PeerPort: 7441, Version: "load", Evidence: ev}, &rep)
	if err == nil && rep.Status != api.EnrolOK {
		err = fmt.Errorf("enrol %s: %+v", a.host.Name, rep)
	}
	return err
}
