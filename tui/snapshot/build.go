package snapshot

import (
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"labswarm/api"
)

// NoRoom is shown as the room of hosts that have none.
const NoRoom = "(no room)"

// Facts are what the server said, as it came from the wire.
type Facts struct {
	Server api.ServerInfo
	Rooms  []api.Room
	Hosts  []api.Host
	Jobs   []api.Job // newest first
}

// Build joins facts into a picture. Nothing of f is changed or kept, so the
// caller may go on using it.
func Build(f Facts) *Snapshot {
	s := &Snapshot{Server: f.Server}
	s.Server.Name, s.Server.Version = Clean(f.Server.Name), Clean(f.Server.Version)
	if l := f.Server.Learn; l != nil {
		learn := *l
		learn.Room = Clean(l.Room)
		s.Server.Learn = &learn
	}
	b := builder{rooms: map[string]*Room{}, known: map[string]bool{}, slots: map[string]place{}}
	for i := range f.Jobs {
		b.jobs = append(b.jobs, cleanJob(f.Jobs[i]))
	}
	s.Jobs = slices.Clone(b.jobs)
	// Live jobs first, newest first among them: a host is in one live job only.
	slices.SortStableFunc(b.jobs, func(x, y *api.Job) int { return over(x) - over(y) })
	b.place()
	for _, r := range f.Rooms {
		b.room(Clean(r.Name))
	}
	for i := range f.Hosts {
		b.add(cleanHost(f.Hosts[i]))
	}
	b.strangers()
	s.Rooms = b.finish()
	for i := range f.Rooms {
		if k, ok := s.Find(Clean(f.Rooms[i].Name)); ok {
			s.Rooms[k].Map = seatMap(&f.Rooms[i], s.Rooms[k].Hosts)
		}
	}
	for i := range s.Rooms {
		s.Hosts += len(s.Rooms[i].Hosts)
	}
	return s
}

func over(j *api.Job) int {
	if j.Ended.IsZero() {
		return 0
	}
	return 1
}

type place struct {
	job  *api.Job
	slot *api.Slot
}

type builder struct {
	jobs  []*api.Job
	rooms map[string]*Room
	known map[string]bool  // host names
	slots map[string]place // by host name
}

// place notes for each host the job that matters: the first of b.jobs.
func (b *builder) place() {
	for _, j := range b.jobs {
		for i := range j.Slots {
			slot := &j.Slots[i]
			if _, taken := b.slots[slot.Host]; !taken {
				b.slots[slot.Host] = place{j, slot}
			}
		}
	}
}

func (b *builder) room(name string) *Room {
	if name == "" {
		name = NoRoom
	}
	r := b.rooms[name]
	if r == nil {
		r = &Room{Name: name}
		b.rooms[name] = r
	}
	return r
}

func (b *builder) add(h api.Host) {
	r, p := b.room(h.Room), b.slots[h.Name]
	b.known[h.Name] = true
	g := GroupOf(p.slot)
	r.Hosts = append(r.Hosts, Host{Host: h, Job: p.job, Slot: p.slot, Group: g})
	r.Counts[g]++
	r.Widest = max(r.Widest, lipgloss.Width(h.Name))
}

// strangers adds hosts that a live job still works on although the inventory
// no longer lists them: what may be written to must be seen.
func (b *builder) strangers() {
	for _, j := range b.jobs {
		if over(j) == 1 {
			return
		}
		for i := range j.Slots {
			s := &j.Slots[i]
			if !b.known[s.Host] {
				b.add(api.Host{Name: s.Host, Room: j.Room, MAC: s.MAC, Firmware: s.Firmware, LastIP: s.LastIP})
			}
		}
	}
}

func (b *builder) finish() []Room {
	out := make([]Room, 0, len(b.rooms))
	for _, r := range b.rooms {
		slices.SortFunc(r.Hosts, func(x, y Host) int { return Natural(x.Name, y.Name) })
		r.Job = roomJob(r)
		out = append(out, *r)
	}
	slices.SortFunc(out, func(x, y Room) int { return Natural(x.Name, y.Name) })
	return out
}

// roomJob is the job of the line under the map: a live one before an ended
// one, then the newest.
func roomJob(r *Room) *api.Job {
	var best *api.Job
	for i := range r.Hosts {
		j := r.Hosts[i].Job
		if j == nil {
			continue
		}
		if best == nil || over(j) < over(best) || over(j) == over(best) && j.ID > best.ID {
			best = j
		}
	}
	return best
}

// Natural compares names so that a2 comes before a10.
func Natural(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		if isDigit(x[0]) && isDigit(y[0]) {
			var m, n string
			m, x = number(x)
			n, y = number(y)
			if len(m) != len(n) {
				return len(m) - len(n)
			}
			if c := strings.Compare(m, n); c != 0 {
				return c
			}
			continue
		}
		if x[0] != y[0] {
			return int(x[0]) - int(y[0])
		}
		x, y = x[1:], y[1:]
	}
	if len(x) != len(y) {
		return len(x) - len(y)
	}
	return strings.Compare(a, b)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// number cuts the leading digits of s, without leading zeros.
func number(s string) (digits, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), s[n:]
}

func cleanHost(h api.Host) api.Host {
	for _, p := range []*string{&h.Name, &h.Room, &h.Seat, &h.MAC, &h.UUID, &h.Disk, &h.LastIP, &h.Firmware} {
		*p = Clean(*p)
	}
	return h
}

// cleanJob copies a job with clean text.
func cleanJob(j api.Job) *api.Job {
	for _, p := range []*string{&j.Image, &j.Version, &j.Room, &j.Result, &j.After, &j.Personalise} {
		*p = Clean(*p)
	}
	j.Slots = slices.Clone(j.Slots)
	for i := range j.Slots {
		CleanSlot(&j.Slots[i])
	}
	return &j
}

// CleanEvent makes the text of an event clean.
func CleanEvent(e api.Event) api.Event {
	for _, p := range []*string{&e.Level, &e.Code, &e.Host, &e.Room, &e.Text} {
		*p = Clean(*p)
	}
	return e
}

// CleanSlot makes the text of a slot clean, its timeline too, without changing
// what the slot shares with others.
func CleanSlot(s *api.Slot) {
	for _, p := range []*string{&s.Host, &s.MAC, (*string)(&s.State), &s.Code, &s.Error, &s.Detail, &s.Firmware, &s.LastIP, &s.Parent} {
		*p = Clean(*p)
	}
	for _, list := range []*[]string{&s.Fallbacks, &s.Warnings, &s.HostKeys} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i] = Clean((*list)[i])
		}
	}
	if s.Disk != nil {
		d := *s.Disk
		for _, p := range []*string{&d.Name, &d.WWN, &d.Serial, &d.Model, &d.Bus, &d.InUse, &d.Note} {
			*p = Clean(*p)
		}
		s.Disk = &d
	}
	s.Timeline = slices.Clone(s.Timeline)
	for i := range s.Timeline {
		s.Timeline[i].Event = Clean(s.Timeline[i].Event)
	}
}
