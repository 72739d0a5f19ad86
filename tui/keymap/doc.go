package keymap

import (
	"fmt"
	"strings"
)

// Name is the screen in words, and Twin the command that shows the same.
type named struct {
	screen     Screen
	name, twin string
}

// names lists every screen but those that only ask.
func names() []named {
	return []named{
		{Rooms, "Rooms", "room ls"}, {Jobs, "Jobs", "job ls"}, {Images, "Images", "image ls"}, {Schedules, "Schedules", "schedule ls"}, {Hosts, "Hosts", "host ls"},
		{Log, "Log", "events"}, {Host, "Host", "host show NAME"}, {Job, "Job", "job watch JOB"},
		{NewJob1, "New job: image and room", "job create --image NAME --room ROOM"}, {NewJob2, "New job: plan", "job create --dry-run"},
		{Relays, "Relays of a job", "job watch JOB"}, {Reports, "Reports", "report ls"}, {Report, "Report of a job", "job report JOB"}, {Doctor, "Doctor", "doctor"},
		{Questions, "Questions and new PCs", "host questions"}, {Help, "Help", "help"},
	}
}

// Moves reports whether a key only moves about or changes the view: it needs no
// twin on the command line.
func (b Binding) Moves() bool {
	switch b.ID {
	case Quit, QuitNow, ShowHelp, Back, Open, Up, Down, Left, Right, First, Last, PageUp, PageDown, NextRoom, PrevRoom, Refresh,
		Filter, Command, Sort, Follow, RoomJob, Mark, MarkAll, Dense, GoQuestions,
		ShowRelays, ShowReport, ShowReports, ShowDoctor:
		return true
	}
	for _, t := range Tops() {
		if t.ID == b.ID {
			return true
		}
	}
	return false
}

// Twins lists the commands that stand for screens and actions, for the test
// that looks for each of them.
func (m Map) Twins() []string {
	var out []string
	for _, n := range names() {
		out = append(out, n.twin)
	}
	for _, b := range m {
		if b.Twin != "" {
			out = append(out, b.Twin)
		}
	}
	return out
}

// Markdown is docs/KEYS.md.
func (m Map) Markdown() string {
	var b strings.Builder
	b.WriteString(`# Keys of the console

Made from the console's key map (tui/keymap) by ` + "`make docs`" + `; a test fails when it is not fresh.
The footer shows the keys that are of use now; ` + "`?`" + ` shows all of a screen. A key that is of no use now says why.

`)
	b.WriteString("| Screen | The same on the command line (each with `--json`) |\n|---|---|\n")
	for _, n := range names() {
		fmt.Fprintf(&b, "| %s | `labswarm %s` |\n", n.name, n.twin)
	}
	everywhere := m.everywhere()
	b.WriteString("\n## On every screen\n\n")
	writeKeys(&b, everywhere)
	for _, n := range names() {
		var own Map
		for _, k := range m.On(n.screen) {
			if !everywhere.has(k.ID) {
				own = append(own, k)
			}
		}
		if len(own) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n", n.name)
			writeKeys(&b, own)
		}
	}
	return b.String()
}

// everywhere returns the bindings that hold on all screens.
func (m Map) everywhere() Map {
	var out Map
	for _, b := range m {
		if b.Screens == All {
			out = append(out, b)
		}
	}
	return out
}

func (m Map) has(id ID) bool {
	for _, b := range m {
		if b.ID == id {
			return true
		}
	}
	return false
}

func writeKeys(b *strings.Builder, m Map) {
	b.WriteString("| Key | What it does | Command line |\n|---|---|---|\n")
	for _, k := range m {
		twin := ""
		if k.Twin != "" {
			twin = "`labswarm " + k.Twin + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", k.Show, k.Long, twin)
	}
}
