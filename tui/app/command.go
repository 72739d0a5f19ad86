package app

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/doctor"
	"labswarm/tui/screen/host"
	"labswarm/tui/screen/hosts"
	"labswarm/tui/screen/images"
	"labswarm/tui/screen/job"
	"labswarm/tui/screen/jobs"
	"labswarm/tui/screen/logs"
	"labswarm/tui/screen/relays"
	"labswarm/tui/screen/report"
	"labswarm/tui/screen/rooms"
	"labswarm/tui/screen/schedules"
	"labswarm/tui/theme"
)

// topView returns a fresh top-level screen for its key, nil for other keys.
func topView(id keymap.ID) screen.View {
	switch id {
	case keymap.GoRooms:
		return rooms.State{}
	case keymap.GoJobs:
		return jobs.State{}
	case keymap.GoImages:
		return images.State{}
	case keymap.GoSchedules:
		return schedules.State{}
	case keymap.GoHosts:
		return hosts.State{}
	case keymap.GoLog:
		return logs.State{}
	}
	return nil
}

const (
	maxCommand = 200 // bytes
	maxHistory = 50  // lines

	codeTime = 10 * time.Second // for the server to look a code up
)

// command is the ":" line. It goes to places and sets the look; it never
// changes anything on the server.
type command struct {
	open    bool
	text    string
	history []string
	at      int // in history; len = the line being typed
}

func (c command) begin() command {
	c.open, c.text, c.at = true, "", len(c.history)
	return c
}

func (c command) line() string { return ":" + c.text + "_" }

// words are the commands that take no name.
var words = []string{"rooms", "jobs", "images", "schedules", "hosts", "log", "help", "theme", "symbols", "room", "host", "job", "code", "q",
	"relay", "reports", "report", "doctor"}

func (m *model) typeCommand(key string) tea.Cmd {
	c := &m.command
	switch key {
	case "esc":
		c.open = false
	case "enter":
		c.open = false
		return m.runCommand(strings.TrimSpace(c.text))
	case "tab":
		c.text = m.complete(c.text)
	case "up", "down":
		step := 1
		if key == "up" {
			step = -1
		}
		c.at, c.text = min(max(c.at+step, 0), len(c.history)), ""
		if c.at < len(c.history) {
			c.text = c.history[c.at]
		}
	case "backspace":
		if c.text == "" {
			c.open = false
		}
		_, n := utf8.DecodeLastRuneInString(c.text)
		c.text = c.text[:len(c.text)-n]
	case "ctrl+u":
		c.text = ""
	default:
		if utf8.RuneCountInString(key) == 1 && len(c.text)+len(key) <= maxCommand {
			c.text += key
		}
	}
	return nil
}

func (m *model) runCommand(text string) tea.Cmd {
	if text == "" {
		return nil
	}
	c := &m.command
	if n := len(c.history); n == 0 || c.history[n-1] != text {
		c.history = append(c.history, text)[max(0, n+1-maxHistory):]
	}
	word, name, _ := strings.Cut(text, " ")
	name = strings.TrimSpace(name)
	switch word {
	case "q", "quit":
		return tea.Quit
	case "help":
		cmd, _ := m.pressEverywhere(keymap.ShowHelp)
		return cmd
	case "theme":
		return m.setLook(name, map[string][2]bool{"default": {true, m.th.ASCII}, "mono": {false, m.th.ASCII}})
	case "symbols":
		return m.setLook(name, map[string][2]bool{"unicode": {m.th.Color, false}, "ascii": {m.th.Color, true}})
	}
	for _, t := range keymap.Tops() {
		if v := topView(t.ID); v != nil && (word == t.Name || word == strings.TrimPrefix(string(t.ID), "go-")) {
			return m.goTo(v)
		}
	}
	if word == "code" {
		return m.askCode(name)
	}
	return m.goToNamed(word, name)
}

// codeMsg is what the server says about a code that was read out from a PC's screen.
type codeMsg struct {
	api.ReadOut
	err error
}

// askCode asks the server: what a slot shows is forgotten with its next attempt.
func (m *model) askCode(text string) tea.Cmd {
	code, ok := api.CheckReadOut(text)
	if !ok {
		m.note = "code " + strconv.Quote(text) + ": two letters and four characters, like DW-4K7P"
		return nil
	}
	ctx, c := m.ctx, m.client
	m.note = "looking for " + code + " ..."
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, codeTime)
		defer cancel()
		r, err := c.Code(ctx, code)
		return codeMsg{r, err}
	}
}

// gotCode opens the host that showed the code.
func (m *model) gotCode(r codeMsg) tea.Cmd {
	if r.err != nil {
		m.note = r.err.Error()
		return nil
	}
	m.note = r.ReadOut.Code + ": " + r.Host + " " + component.Clock(r.Time, m.now)
	if f := r.Fault; f != nil {
		m.note += fmt.Sprintf(" %s at sector %d", f.Errno, f.Sector)
	}
	if r.Log != "" {
		m.note += " log " + r.Log
	}
	room, h := m.s.Host(r.Host)
	if h == nil {
		m.note += " (no longer known)"
		return nil
	}
	m.open(host.State{Room: room.Name, Host: h.Name})
	return m.read()
}

// setLook changes colour and characters.
func (m *model) setLook(name string, looks map[string][2]bool) tea.Cmd {
	l, ok := looks[name]
	if !ok {
		var names []string
		for n := range looks {
			names = append(names, n)
		}
		sort.Strings(names)
		m.note = "choose one of: " + strings.Join(names, " ")
		return nil
	}
	m.th = theme.New(l[0], l[1])
	return nil
}

// goToNamed opens a room, host or job.
func (m *model) goToNamed(word, name string) tea.Cmd {
	var v screen.View
	switch word {
	case "room":
		if i, ok := m.s.Find(name); ok {
			return m.take(screen.Effect{Go: rooms.State{Room: m.s.Rooms[i].Name}})
		}
	case "host":
		if r, h := m.s.Host(name); h != nil {
			v = host.State{Room: r.Name, Host: h.Name}
		}
	case "job":
		if id, err := strconv.ParseUint(name, 10, 64); err == nil && m.s.Job(id) != nil {
			v = job.State{ID: id}
		}
	case "relay":
		if id, err := strconv.ParseUint(name, 10, 64); err == nil && m.s.Job(id) != nil {
			v = relays.State{Job: id}
		}
	case "report":
		if id, err := strconv.ParseUint(name, 10, 64); err == nil { // also of a job that is not listed any more
			v = report.State{Job: id}
		}
	case "reports":
		v = report.List{}
	case "doctor":
		v = doctor.State{}
	default:
		m.note = "there is no command " + strconv.Quote(word) + "; tab shows what there is"
		return nil
	}
	if v == nil {
		m.note = "there is no " + word + " " + strconv.Quote(name)
		return nil
	}
	m.open(v)
	return m.read()
}

// complete is the text with what must follow; several ways are shown.
func (m *model) complete(text string) string {
	word, name, named := strings.Cut(text, " ")
	if !named {
		return m.completeFrom("", word, words)
	}
	var names []string
	switch word {
	case "room":
		for i := range m.s.Rooms {
			names = append(names, m.s.Rooms[i].Name)
		}
	case "host":
		for i := range m.s.Rooms {
			for k := range m.s.Rooms[i].Hosts {
				names = append(names, m.s.Rooms[i].Hosts[k].Name)
			}
		}
	case "job", "relay", "report":
		for _, j := range m.s.Jobs {
			names = append(names, strconv.FormatUint(j.ID, 10))
		}
	case "theme":
		names = []string{"default", "mono"}
	case "symbols":
		names = []string{"ascii", "unicode"}
	}
	return m.completeFrom(word+" ", name, names)
}

func (m *model) completeFrom(lead, start string, names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, start) })
	if len(names) == 0 {
		return lead + start
	}
	common := names[0]
	for _, n := range names[1:] {
		for !strings.HasPrefix(n, common) {
			_, size := utf8.DecodeLastRuneInString(common)
			common = common[:len(common)-size]
		}
	}
	return lead + common
}
