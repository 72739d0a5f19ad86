// Package metrics holds the server's figures for Prometheus: their names, and how jobs become counters. Names are stable, docs/monitoring
// uses them. No figure has a label for a host or a room, since each value of a label is a series for ever; schedules are few, and have one. Fed and served by server/daemon.
package metrics

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"labswarm/api"
	"labswarm/internal/version"
)

// Sources are asked at each scrape. They must be quick; -1 = not known now, which shows as no value.
type Sources struct {
	Hosts     func() int          // in the inventory
	Tick      func() api.Tick     // live and just ended jobs
	StoreSize func() int64        // bytes of the state file
	ImageFree func() int64        // bytes
	Outbox    func() int          // messages not yet delivered
	Scrubbed  func() (int, int64) // image versions in quarantine; Unix time of the oldest last check, 0 = none
	Schedules func() []Schedule
}

// Schedule is one schedule's times in Unix seconds, 0 = none.
type Schedule struct {
	Name          string
	Next, Success int64
}

// Set is all figures. Make it with New; safe for concurrent use.
type Set struct {
	BootDecisions, Orders, Commence, JobHosts, Received, DiskErrors, Announces, Replans, DHCP, TFTP *prometheus.CounterVec
	Written, SeedSent, HashFailures, ReadbackMismatch, ForeignOffers, ScrubErrors                   prometheus.Counter
	Phase, HTTP                                                                                     *prometheus.HistogramVec
	Commit                                                                                          prometheus.Histogram

	reg   *prometheus.Registry
	names []string
	begun time.Time

	mu   sync.Mutex
	last map[slotKey]bytesOf // what was counted already
	sent map[uint64]int64    // by job
}

type slotKey struct {
	job  uint64
	host string
}

type bytesOf struct{ written, seed, peers int64 }

const space = "labswarm_"

// New registers all figures. Jobs older than begun count from their first Sample on.
func New(src Sources, begun time.Time) *Set {
	s := &Set{reg: prometheus.NewRegistry(), begun: begun, last: map[slotKey]bytesOf{}, sent: map[uint64]int64{}}
	named := func(name string) string { s.names = append(s.names, space+name); return space + name }
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: named(name), Help: help}, labels)
		s.reg.MustRegister(v)
		return v
	}
	one := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: named(name), Help: help})
		s.reg.MustRegister(c)
		return c
	}
	s.BootDecisions = vec("boot_decisions_total", "Answers to booting PCs.", "action", "proto")
	s.Orders = vec("orders_total", "Requests of agents for their order.", "result")
	s.Commence = vec("commence_total", "Requests of agents to begin writing.", "result")
	s.JobHosts = vec("job_hosts_total", "Hosts that reached an end in a job.", "result")
	s.Received = vec("swarm_received_bytes_total", "Bytes of images that hosts received.", "source")
	s.DiskErrors = vec("disk_errors_total", "Hosts that failed by their disk.", "op")
	s.Announces = vec("announces_total", "Reports of hosts about themselves.", "result")
	s.Replans = vec("relay_replans_total", "Hosts that were given another parent.", "reason")
	s.DHCP = vec("dhcp_packets_total", "DHCP packets by type and what became of them.", "type", "result")
	s.TFTP = vec("tftp_transfers_total", "TFTP transfers.", "result")
	s.Written = one("written_bytes_total", "Bytes of images that hosts wrote.")
	s.SeedSent = one("seed_sent_bytes_total", "Bytes of images that the server sent.")
	s.HashFailures = one("cell_hash_failures_total", "Cells that hosts received wrong and threw away.")
	s.ReadbackMismatch = one("readback_mismatch_total", "Hosts whose disk read back other than written.")
	s.ForeignOffers = one("dhcp_foreign_offers_total", "Boot offers of other servers that were seen.")
	s.ScrubErrors = one("scrub_errors_total", "Times that an image was found damaged.")
	s.Phase = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: named("job_phase_duration_seconds"), Help: "Time of hosts in each state.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 13)}, []string{"phase"})
	s.HTTP = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: named("http_request_duration_seconds"), Help: "Requests of agents and admins, without event streams.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"route", "code"})
	s.Commit = prometheus.NewHistogram(prometheus.HistogramOpts{Name: named("store_commit_seconds"), Help: "Durable writes of the state.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)})
	s.reg.MustRegister(s.Phase, s.HTTP, s.Commit, &asked{src})
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: named("build_info"), Help: "Always 1."}, []string{"version"})
	info.WithLabelValues(version.String()).Set(1)
	s.reg.MustRegister(info)
	return s
}

// Handler answers a scrape.
func (s *Set) Handler() http.Handler {
	return promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Names lists all figures, also those that have no value yet.
func (s *Set) Names() []string { return append(slices.Clone(s.names), askedNames...) }

// Transition counts a host's change of state. took is the time it was in the old one.
func (s *Set) Transition(from, to api.State, final bool, code string, took time.Duration) {
	s.Phase.WithLabelValues(lower(from)).Observe(max(0, took.Seconds()))
	if final {
		s.JobHosts.WithLabelValues(lower(to)).Inc()
	}
	if to != api.StateFailed {
		return
	}
	switch code {
	case api.CodeDiskWrite:
		s.DiskErrors.WithLabelValues("write").Inc()
	case api.CodeDiskRead:
		s.DiskErrors.WithLabelValues("read").Inc()
	case api.CodeVerify:
		s.ReadbackMismatch.Inc()
	}
}

// Sample adds what hosts and the seed have moved since the last one. Ended jobs stay in a tick for minutes, so that nothing is
// missed when it is called every few seconds.
func (s *Set) Sample(t api.Tick) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, jobs := map[slotKey]bool{}, map[uint64]bool{}
	for _, j := range t.Jobs {
		if j.Kind == api.KindCapture {
			continue
		}
		jobs[j.ID] = true
		old, known := s.sent[j.ID]
		s.sent[j.ID] = max(old, j.SeedSent)
		if known || !j.Created.Before(s.begun) {
			s.SeedSent.Add(float64(max(0, j.SeedSent-old)))
		}
		for i := range j.Slots {
			sl := &j.Slots[i]
			k := slotKey{j.ID, sl.Host}
			seen[k] = true
			now := bytesOf{int64(sl.CellsWritten) * j.CellBytes, sl.BytesFromSeed, sl.BytesFromPeers}
			was, known := s.last[k]
			s.last[k] = bytesOf{max(was.written, now.written), max(was.seed, now.seed), max(was.peers, now.peers)}
			if !known && j.Created.Before(s.begun) {
				continue
			}
			s.Written.Add(float64(max(0, now.written-was.written)))
			s.Received.WithLabelValues("server").Add(float64(max(0, now.seed-was.seed)))
			s.Received.WithLabelValues("peers").Add(float64(max(0, now.peers-was.peers)))
		}
	}
	for k := range s.last {
		if !seen[k] {
			delete(s.last, k)
		}
	}
	for id := range s.sent {
		if !jobs[id] {
			delete(s.sent, id)
		}
	}
}
