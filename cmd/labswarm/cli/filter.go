package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/filter"
	"labswarm/tui/snapshot"
)

// Columns that --filter may name: those of the console's lists.
var (
	hostColumns  = []string{"host", "room", "mac", "address", "fw", "state", "seen"}
	slotColumns  = []string{"host", "state", "done", "mbps", "from", "code"}
	eventColumns = []string{"level", "code", "job", "host", "room"}
)

// filterFlag adds --filter to a command.
func filterFlag(cmd *cobra.Command, text *string, columns []string) {
	cmd.Flags().StringVar(text, "filter", "", "only lines that match `TERMS`, as after / in the console: a word, COLUMN=VALUE, !=, <, >; ! inverts. Columns: "+strings.Join(columns, " "))
}

// parseFilter reads --filter; what cannot be read is wrong use.
func parseFilter(text string, columns []string) (filter.Filter, error) {
	f, err := filter.Parse(text, columns)
	if err != nil {
		return f, usage(err)
	}
	return f, nil
}

// hostRow is a host as --filter sees it; slot is its part in the newest job that
// it is in, nil = none.
func hostRow(h api.Host, slot *api.Slot, now time.Time) filter.Row {
	fw, ip, state, seen := h.Firmware, h.LastIP, "idle", ""
	if h.Secure || fw == "secureboot" {
		fw = "secure"
	}
	if slot != nil {
		state = string(slot.State)
		if slot.LastIP != "" {
			ip = slot.LastIP
		}
	}
	if !h.LastSeen.IsZero() {
		seen = strconv.Itoa(int(now.Sub(h.LastSeen).Hours() / 24))
	}
	return filter.Row{"host": h.Name, "room": h.Room, "mac": h.MAC, "address": ip, "fw": fw, "state": state, "seen": seen, "seat": h.Seat}
}

// slotRow is a host of a job.
func slotRow(s api.Slot) filter.Row {
	state := strings.ReplaceAll(strings.ToLower(string(s.State)), "_", " ")
	if snapshot.IsSilent(&s) {
		state = "silent"
	}
	what := s.Detail
	if s.Error != "" {
		what = s.Error
	}
	return filter.Row{"host": s.Host, "state": state, "done": strconv.Itoa(int(s.Percent)), "mbps": strconv.FormatInt(s.RateBps>>20, 10),
		"from": s.Parent, "code": s.Code, "what": strings.TrimSpace(s.ReadOut + " " + what)}
}

func eventRow(ev api.Event) filter.Row {
	job := ""
	if ev.Job != 0 {
		job = strconv.FormatUint(ev.Job, 10)
	}
	return filter.Row{"level": strings.ToLower(ev.Level), "code": ev.Code, "job": job, "host": ev.Host, "room": ev.Room, "what": ev.Text}
}

// newHostLs is `host ls`.
func newHostLs(e *env) *cobra.Command {
	var text string
	cmd := &cobra.Command{Use: "ls [--filter TERMS]", Short: "list the hosts", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		return e.hostList(cmd, "", text)
	}}
	filterFlag(cmd, &text, hostColumns)
	return cmd
}

// filterHosts keeps the hosts that match. The jobs are asked for only when they
// matter.
func (e *env) filterHosts(cmd *cobra.Command, hosts []api.Host, text string) ([]api.Host, error) {
	f, err := parseFilter(text, hostColumns)
	if err != nil || f.Empty() {
		return hosts, err
	}
	c := e.client()
	defer c.Close()
	jobs, err := c.Jobs(cmd.Context())
	if err != nil {
		return nil, err
	}
	slots := map[string]*api.Slot{}
	for _, j := range jobs { // newest first
		for i := range j.Slots {
			if s := &j.Slots[i]; slots[s.Host] == nil {
				slots[s.Host] = s
			}
		}
	}
	out := []api.Host{}
	for _, h := range hosts {
		if f.Match(hostRow(h, slots[h.Name], time.Now())) {
			out = append(out, h)
		}
	}
	return out, nil
}
