package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"labswarm/api"
)

// asked are the figures that are looked up at each scrape.
type asked struct{ src Sources }

var askedNames []string

func desc(name, help string, labels ...string) *prometheus.Desc {
	askedNames = append(askedNames, space+name)
	return prometheus.NewDesc(space+name, help, labels, nil)
}

var (
	descHosts     = desc("hosts", "Hosts of live jobs by state; state none: hosts without a job.", "state")
	descJobs      = desc("jobs", "Jobs that are live, or ended in the last ten minutes, by result.", "state")
	descStore     = desc("store_size_bytes", "Size of the state file.")
	descFree      = desc("image_dir_free_bytes", "Free space of the image store's disk.")
	descOutbox    = desc("outbox_pending", "Notifications that were not delivered yet.")
	descDamaged   = desc("images_quarantined", "Image versions in quarantine.")
	descLastScrub = desc("scrub_oldest_timestamp_seconds", "Last check of the image version that was checked the longest ago.")
	descNextRun   = desc("schedule_next_run_timestamp_seconds", "Begin of the next run of a schedule that is not skipped; no value = none.", "schedule")
	descLastOK    = desc("schedule_last_success_timestamp_seconds", "End of the last job of a schedule with result ok: every host has the image.", "schedule")
)

// Describe implements prometheus.Collector.
func (a *asked) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descHosts, descJobs, descStore, descFree, descOutbox, descDamaged, descLastScrub, descNextRun, descLastOK} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *asked) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	hosts, jobs := map[string]int{}, map[string]int{"live": 0}
	busy := map[string]bool{}
	for _, j := range a.src.Tick().Jobs {
		if !j.Ended.IsZero() {
			jobs[j.Result]++
			continue
		}
		jobs["live"]++
		for _, s := range j.Slots {
			hosts[lower(s.State)]++
			busy[s.Host] = true
		}
	}
	if n := a.src.Hosts(); n >= 0 {
		hosts["none"] = max(0, n-len(busy))
	}
	for state, n := range hosts {
		gauge(descHosts, float64(n), state)
	}
	for state, n := range jobs {
		gauge(descJobs, float64(n), state)
	}
	known := func(d *prometheus.Desc, n int64) {
		if n >= 0 {
			gauge(d, float64(n))
		}
	}
	known(descStore, a.src.StoreSize())
	known(descFree, a.src.ImageFree())
	known(descOutbox, int64(a.src.Outbox()))
	n, oldest := a.src.Scrubbed()
	known(descDamaged, int64(n))
	if oldest > 0 {
		known(descLastScrub, oldest)
	}
	for _, s := range a.src.Schedules() {
		if s.Next > 0 {
			gauge(descNextRun, float64(s.Next), s.Name)
		}
		if s.Success > 0 {
			gauge(descLastOK, float64(s.Success), s.Name)
		}
	}
}

func lower(s api.State) string { return strings.ToLower(string(s)) }
