// Package keymap is the only place that knows keys: footer, help screen and
// the router of the console all read the same bindings.
//
// It does not act: a key press becomes an ID, what follows is tui/app's
// business.
package keymap

import "strings"

// Screen is where a binding is valid.
type Screen uint32

// The screens; several can be or-ed together. A text field of any screen takes
// its keys before the key map does.
const (
	Rooms Screen = 1 << iota
	Jobs
	Images
	Hosts
	Log
	Host
	Job
	NewJob1 // new job: image, room
	NewJob2 // new job: the plan
	Confirm // takes all keys itself, as the form of a new job does
	Schedules
	Questions // and new PCs; their choices
	Relays    // who feeds whom in a job
	Reports   // the kept reports
	Report    // one of them
	Doctor
	Help  // the last
	pages = Relays | Reports | Report | Doctor
	tops  = Rooms | Jobs | Images | Schedules | Hosts | Log
	lists = Jobs | Images | Schedules | Hosts | Log
	asks  = NewJob1 | NewJob2
	All   = tops | Host | Job | asks | Questions | pages | Help
)

// Top is a screen that is reached by its number from anywhere.
type Top struct {
	ID     ID
	Screen Screen
	Key    string
	Name   string // one word
}

// Tops lists them in the order of their numbers.
func Tops() []Top {
	return []Top{
		{GoRooms, Rooms, "1", "rooms"}, {GoJobs, Jobs, "2", "jobs"}, {GoImages, Images, "3", "images"},
		{GoSchedules, Schedules, "4", "sched"}, {GoHosts, Hosts, "5", "hosts"}, {GoLog, Log, "6", "log"},
	}
}

// Bar is the line of top-level screens, for the header.
func Bar() string {
	var items []string
	for _, t := range Tops() {
		items = append(items, t.Key+" "+t.Name)
	}
	return strings.Join(items, " ")
}

// Each returns the single screens in s, in order.
func Each(s Screen) []Screen {
	var out []Screen
	for b := Screen(1); b <= Help; b <<= 1 {
		if s&b != 0 {
			out = append(out, b)
		}
	}
	return out
}

// ID names what a key asks for.
type ID string

// Everything the console can be asked for.
const (
	Quit     ID = "quit"
	QuitNow  ID = "quit-now"
	ShowHelp ID = "help"
	Back     ID = "back"
	Open     ID = "open"
	Up       ID = "up"
	Down     ID = "down"
	Left     ID = "left"
	Right    ID = "right"
	First    ID = "first"
	Last     ID = "last"
	PageUp   ID = "page-up"
	PageDown ID = "page-down"
	NextRoom ID = "next-room"
	PrevRoom ID = "previous-room"
	Refresh  ID = "refresh"

	GoRooms  ID = "go-rooms"
	GoJobs   ID = "go-jobs"
	GoImages ID = "go-images"
	GoHosts  ID = "go-hosts"
	GoLog    ID = "go-log"

	Filter  ID = "filter"
	Command ID = "command"
	Sort    ID = "sort"
	Follow  ID = "follow"
	RoomJob ID = "room-job"

	Cancel  ID = "cancel"
	NewJob  ID = "new-job"
	Mark    ID = "mark"
	MarkAll ID = "mark-all"
	Save    ID = "save"
	Pause   ID = "pause"
	Retry   ID = "retry"
	Skip    ID = "skip"

	GoSchedules ID = "go-schedules"
	Dense       ID = "dense"
	Wake        ID = "wake"
	GoQuestions ID = "go-questions"
	LearnMode   ID = "learn"
	Answer      ID = "answer"
	Bind        ID = "bind"
	RunNow      ID = "run-now"
	Delete      ID = "delete"
	ShowRelays  ID = "relays"
	ShowReport  ID = "report"
	ShowReports ID = "reports"
	ShowDoctor  ID = "doctor"
	Examine     ID = "examine"
	Pin         ID = "pin"
	Remove      ID = "remove"
	Capture     ID = "capture"
)

// State is what decides whether a key is of use now.
type State struct {
	Hosts int // in the room shown
	Rooms int
	Items int  // in the list shown
	Job   bool // there is a job to look at
	Ended bool // the job on the screen has ended
	Idle  bool // the selected host is in no running job

	ReadOnly, Stale bool // nothing may be asked of the server
}

// Binding ties keys to an ID on some screens.
type Binding struct {
	ID      ID
	Screens Screen
	Keys    []string // as bubbletea writes them; the space key is "space"
	Show    string   // the keys as people read them
	Help    string   // one or two words, for the footer; "" = not in the footer
	Long    string   // one line, for the help screen
	Twin    string   // the command that does the same, for keys that do more than move about

	// When says whether the binding is of use, and why not; nil = always.
	When func(State) (ok bool, why string)
}

// Map is an ordered list of bindings: the order of footer and help.
type Map []Binding

// Default returns the console's bindings.
func Default() Map {
	hosts := func(s State) (bool, string) { return s.Hosts > 0, "there is no host in this room" }
	rooms := func(s State) (bool, string) { return s.Rooms > 1, "there is no other room" }
	items := func(s State) (bool, string) { return s.Items > 0, "the list is empty" }
	act := func(s State) (bool, string) {
		switch {
		case s.ReadOnly:
			return false, "this console is read-only"
		case s.Stale:
			return false, "not while the picture is old; wait for the server"
		}
		return true, ""
	}
	running := func(s State) (bool, string) {
		if s.Ended {
			return false, "the job has ended"
		}
		return act(s)
	}
	steer := func(s State) (bool, string) {
		if s.Hosts == 0 && s.Items == 0 {
			return false, "there is no host"
		}
		if s.Idle {
			return false, "the host is in no running job"
		}
		return act(s)
	}
	change := func(s State) (bool, string) {
		if s.Items == 0 {
			return false, "the list is empty"
		}
		return act(s)
	}
	wake := func(s State) (bool, string) {
		if s.Hosts == 0 && s.Items == 0 {
			return false, "there is no host"
		}
		return act(s)
	}
	learn := func(s State) (bool, string) {
		if s.Rooms == 0 {
			return false, "there is no room"
		}
		return act(s)
	}
	failed := func(s State) (bool, string) {
		if s.Hosts == 0 {
			return false, "every host has the image, or is still at it"
		}
		return act(s)
	}
	capture := func(s State) (bool, string) {
		if s.Hosts == 0 {
			return hosts(s)
		}
		if !s.Idle {
			return false, "the host is in a running job"
		}
		return act(s)
	}
	job := func(s State) (bool, string) { return s.Job, "this room has had no job" }
	out := Map{
		{ID: Open, Screens: Rooms, Keys: []string{"enter"}, Show: "enter", Help: "host", Long: "open the selected host: facts and timeline", When: hosts},
		{ID: NextRoom, Screens: Rooms, Keys: []string{"tab"}, Show: "tab", Help: "next room", Long: "next room", When: rooms},
		{ID: PrevRoom, Screens: Rooms, Keys: []string{"shift+tab"}, Show: "shift+tab", Long: "previous room", When: rooms},
		{ID: Left, Screens: Rooms, Keys: []string{"left", "h"}, Show: "left h", Long: "host to the left", When: hosts},
		{ID: Down, Screens: Rooms, Keys: []string{"down", "j"}, Show: "down j", Long: "host below", When: hosts},
		{ID: Up, Screens: Rooms, Keys: []string{"up", "k"}, Show: "up k", Long: "host above", When: hosts},
		{ID: Right, Screens: Rooms, Keys: []string{"right", "l"}, Show: "right l", Long: "host to the right", When: hosts},
		{ID: First, Screens: Rooms, Keys: []string{"g", "home"}, Show: "g home", Long: "first host", When: hosts},
		{ID: Last, Screens: Rooms, Keys: []string{"G", "end"}, Show: "G end", Long: "last host", When: hosts},
		{ID: PageUp, Screens: Rooms, Keys: []string{"pgup", "ctrl+b"}, Show: "pgup", Long: "one screen of hosts up", When: hosts},
		{ID: PageDown, Screens: Rooms, Keys: []string{"pgdown", "ctrl+f"}, Show: "pgdown", Long: "one screen of hosts down", When: hosts},

		{ID: Mark, Screens: Rooms, Keys: []string{"space"}, Show: "space", Help: "mark", Long: "mark the host for the next command, or take the mark away", When: hosts},
		{ID: MarkAll, Screens: Rooms, Keys: []string{"a"}, Show: "a", Long: "mark all hosts of the room, or none", When: hosts},
		{ID: NewJob, Screens: Rooms | Images | Jobs, Keys: []string{"n"}, Show: "n", Help: "new job", Long: "new job for the room, the marked hosts, or of the selected image", Twin: "job create --image NAME --room ROOM", When: act},
		{ID: RoomJob, Screens: Rooms, Keys: []string{"o"}, Show: "o", Help: "job", Long: "open the room's job", When: job},

		{ID: Open, Screens: Jobs | Images | Schedules | Hosts, Keys: []string{"enter"}, Show: "enter", Help: "open", Long: "open the selected line", When: items},
		{ID: Open, Screens: Job, Keys: []string{"enter"}, Show: "enter", Help: "host", Long: "open the selected host", When: items},
		{ID: Open, Screens: NewJob1, Keys: []string{"enter"}, Show: "enter", Help: "choose", Long: "choose the selected line and go on", When: items},
		{ID: Open, Screens: NewJob2, Keys: []string{"enter"}, Show: "enter", Help: "go on", Long: "go on to the question before the job is made", When: act},
		{ID: Save, Screens: NewJob2, Keys: []string{"o"}, Show: "o", Help: "save", Long: "save the plan to a file", Twin: "job create --dry-run"},
		{ID: Back, Screens: asks, Keys: []string{"esc"}, Show: "esc", Help: "back", Long: "one step back"},
		{ID: Up, Screens: lists | Job | asks | Questions, Keys: []string{"up", "k"}, Show: "up k", Long: "line above", When: items},
		{ID: Down, Screens: lists | Job | asks | Questions, Keys: []string{"down", "j"}, Show: "down j", Long: "line below", When: items},
		{ID: First, Screens: lists | Job | asks | Questions, Keys: []string{"g", "home"}, Show: "g home", Long: "first line", When: items},
		{ID: Last, Screens: lists | Job | asks | Questions, Keys: []string{"G", "end"}, Show: "G end", Long: "last line", When: items},
		{ID: PageUp, Screens: lists | Job | asks | Questions, Keys: []string{"pgup", "ctrl+b"}, Show: "pgup", Long: "one screen up", When: items},
		{ID: PageDown, Screens: lists | Job | asks | Questions, Keys: []string{"pgdown", "ctrl+f"}, Show: "pgdown", Long: "one screen down", When: items},
		{ID: Sort, Screens: Job | Hosts, Keys: []string{"s"}, Show: "s", Help: "sort", Long: "sort by the next column", When: items},
		{ID: Follow, Screens: Log, Keys: []string{"f"}, Show: "f", Help: "follow", Long: "stay at the newest line, or stop"},
		{ID: Filter, Screens: lists | Job | NewJob1, Keys: []string{"/"}, Show: "/", Help: "filter", Long: "show only lines that match, for example: room=A101 state!=done"},

		{ID: Pause, Screens: Job, Keys: []string{"p"}, Show: "p", Help: "pause", Long: "pause the job: no new host passes the point of no return; again: resume", Twin: "job pause JOB", When: running},
		{ID: Retry, Screens: Rooms | Job | Host, Keys: []string{"r"}, Show: "r", Help: "retry", Long: "another chance for a host that ended without the image, or that is held", Twin: "job retry JOB HOST", When: steer},
		{ID: Skip, Screens: Rooms | Job | Host, Keys: []string{"x"}, Show: "x", Long: "leave a host out of its job; only before its point of no return", Twin: "job skip JOB HOST", When: steer},
		{ID: Cancel, Screens: Job, Keys: []string{"C"}, Show: "C", Help: "cancel", Long: "cancel the job: hosts that have not begun to write are released", Twin: "job cancel JOB", When: running},

		{ID: Back, Screens: Job, Keys: []string{"esc"}, Show: "esc", Help: "back", Long: "one level back"},
		{ID: Back, Screens: Host | Help, Keys: []string{"esc"}, Show: "esc", Help: "back", Long: "one level back"},
		{ID: Left, Screens: Host, Keys: []string{"left", "h"}, Show: "left h", Help: "previous", Long: "previous host of the room", When: hosts},
		{ID: Right, Screens: Host, Keys: []string{"right", "l"}, Show: "right l", Help: "next", Long: "next host of the room", When: hosts},
		{ID: Up, Screens: Host | Help, Keys: []string{"up", "k"}, Show: "up k", Long: "scroll up"},
		{ID: Down, Screens: Host | Help, Keys: []string{"down", "j"}, Show: "down j", Help: "scroll", Long: "scroll down"},
		{ID: First, Screens: Host | Help, Keys: []string{"g", "home"}, Show: "g home", Long: "to the beginning"},
		{ID: Last, Screens: Host | Help, Keys: []string{"G", "end"}, Show: "G end", Long: "to the end"},
		{ID: PageUp, Screens: Host | Help, Keys: []string{"pgup", "ctrl+b"}, Show: "pgup", Long: "one screen up"},
		{ID: PageDown, Screens: Host | Help, Keys: []string{"pgdown", "ctrl+f"}, Show: "pgdown", Long: "one screen down"},

		{ID: GoQuestions, Screens: Rooms, Keys: []string{"u"}, Show: "u", Long: "questions of the server, and new PCs that show a code"},
		{ID: LearnMode, Screens: Rooms, Keys: []string{"L"}, Show: "L", Long: "open learn mode for the room: new PCs show a code; or close it", Twin: "room learn ROOM", When: learn},
		{ID: Wake, Screens: Rooms | Job | Host, Keys: []string{"w"}, Show: "w", Long: "switch on the marked hosts or the selected one", Twin: "host wake HOST", When: wake},
		{ID: Pause, Screens: Schedules, Keys: []string{"space"}, Show: "space", Help: "pause", Long: "pause the schedule; again: resume", Twin: "schedule pause NAME", When: change},
		{ID: RunNow, Screens: Schedules, Keys: []string{"R"}, Show: "R", Help: "run now", Long: "make the schedule's job now: ERASES disks", Twin: "schedule run NAME", When: change},
		{ID: Delete, Screens: Schedules, Keys: []string{"D"}, Show: "D", Help: "delete", Long: "delete the schedule; jobs that run go on", Twin: "schedule rm NAME", When: change},
		{ID: Answer, Screens: Questions, Keys: []string{"enter"}, Show: "enter", Help: "choose", Long: "answer the question, or give the new PC its seat", Twin: "host answer ID ANSWER", When: change},
		{ID: Bind, Screens: Questions, Keys: []string{"b"}, Show: "b", Help: "code", Long: "give the PC that shows a code its seat", Twin: "host enrol CODE --room ROOM", When: act},
		{ID: Back, Screens: Questions, Keys: []string{"esc"}, Show: "esc", Help: "back", Long: "one level back"},
		{ID: Dense, Screens: Rooms, Keys: []string{"z"}, Show: "z", Long: "the dense map, three columns a seat, and back", When: hosts},
		{ID: ShowRelays, Screens: Job, Keys: []string{"v"}, Show: "v", Help: "relays", Long: "who feeds whom: the chains of the job", When: items},
		{ID: ShowReport, Screens: Job, Keys: []string{"R"}, Show: "R", Help: "report", Long: "the job's report: verdict, seats, figures", When: items},
		{ID: ShowReports, Screens: Jobs, Keys: []string{"R"}, Show: "R", Help: "reports", Long: "the kept reports of jobs"},
		{ID: ShowDoctor, Screens: Jobs | Log, Keys: []string{"d"}, Show: "d", Help: "doctor", Long: "examine server, machine and network"},
		{ID: Examine, Screens: Doctor, Keys: []string{"r"}, Show: "r", Help: "again", Long: "examine once more", Twin: "doctor"},
		{ID: Open, Screens: Relays, Keys: []string{"enter"}, Show: "enter", Help: "host", Long: "open the selected host", When: items},
		{ID: Open, Screens: Reports, Keys: []string{"enter"}, Show: "enter", Help: "open", Long: "open the selected report", When: items},
		{ID: Save, Screens: Report, Keys: []string{"o"}, Show: "o", Help: "save", Long: "save the report into the working folder: choose html, csv, md or json", Twin: "job report JOB --format FORMAT", When: items},
		{ID: NewJob, Screens: Report, Keys: []string{"n"}, Show: "n", Help: "new job", Long: "new job for the hosts that did not get the image", Twin: "job create --image NAME --hosts HOSTS", When: failed},
		{ID: Pin, Screens: Images, Keys: []string{"P"}, Show: "P", Help: "pin", Long: "keep the version from being removed, or end that", Twin: "image pin NAME/VERSION", When: change},
		{ID: Remove, Screens: Images, Keys: []string{"D"}, Show: "D", Help: "delete", Long: "remove the version; its name has to be typed", Twin: "image rm NAME/VERSION", When: change},
		{ID: Capture, Screens: Host, Keys: []string{"c"}, Show: "c", Help: "capture", Long: "make an image of the host's disk; nothing is written to it", Twin: "image capture NAME --host HOST", When: capture},
		{ID: Back, Screens: pages, Keys: []string{"esc"}, Show: "esc", Help: "back", Long: "one level back"},
		{ID: Left, Screens: Relays, Keys: []string{"left", "h"}, Show: "left h", Help: "previous", Long: "previous host of the chain", When: items},
		{ID: Right, Screens: Relays, Keys: []string{"right", "l"}, Show: "right l", Help: "next", Long: "next host of the chain", When: items},
		{ID: Up, Screens: pages, Keys: []string{"up", "k"}, Show: "up k", Long: "line above", When: items},
		{ID: Down, Screens: pages, Keys: []string{"down", "j"}, Show: "down j", Long: "line below", When: items},
		{ID: First, Screens: pages, Keys: []string{"g", "home"}, Show: "g home", Long: "to the beginning", When: items},
		{ID: Last, Screens: pages, Keys: []string{"G", "end"}, Show: "G end", Long: "to the end", When: items},
		{ID: PageUp, Screens: pages, Keys: []string{"pgup", "ctrl+b"}, Show: "pgup", Long: "one screen up", When: items},
		{ID: PageDown, Screens: pages, Keys: []string{"pgdown", "ctrl+f"}, Show: "pgdown", Long: "one screen down", When: items},
		{ID: Filter, Screens: Reports, Keys: []string{"/"}, Show: "/", Help: "filter", Long: "show only lines that match, for example: room=A101 result=partial"},

		{ID: Command, Screens: All, Keys: []string{":"}, Show: ":", Long: "go to something by its name: room A101, host a13, job 118; tab completes"},
		{ID: Refresh, Screens: All &^ Help, Keys: []string{"ctrl+r"}, Show: "ctrl+r", Long: "read everything from the server again"},
		{ID: ShowHelp, Screens: All, Keys: []string{"?"}, Show: "?", Help: "help", Long: "this help; again: back"},
		{ID: Quit, Screens: All, Keys: []string{"q"}, Show: "q", Help: "quit", Long: "quit the console; jobs go on"},
		{ID: QuitNow, Screens: All, Keys: []string{"ctrl+c"}, Show: "ctrl+c", Long: "quit at once; jobs go on"},
	}
	for _, t := range Tops() {
		out = append(out, Binding{ID: t.ID, Screens: All, Keys: []string{t.Key}, Show: t.Key, Long: "screen: " + t.Name})
	}
	return out
}

// On returns the bindings of one screen.
func (m Map) On(s Screen) Map {
	var out Map
	for _, b := range m {
		if b.Screens&s != 0 {
			out = append(out, b)
		}
	}
	return out
}

// Find returns what a key asks for on a screen. ok is false for an unknown
// key; why is not empty when the key is of no use now.
func (m Map) Find(s Screen, key string, st State) (id ID, why string, ok bool) {
	for _, b := range m {
		if b.Screens&s == 0 {
			continue
		}
		for _, k := range b.Keys {
			if k != key {
				continue
			}
			if b.When != nil {
				if of, no := b.When(st); !of {
					return b.ID, k + ": " + no, true
				}
			}
			return b.ID, "", true
		}
	}
	return "", "", false
}

// Footer is the line of keys that are of use now, as wide as w at most. The
// last two, help and quit, are kept before the others.
func (m Map) Footer(s Screen, st State, w int) string {
	var items []string
	for _, b := range m.On(s) {
		if b.Help == "" {
			continue
		}
		if b.When != nil {
			if ok, _ := b.When(st); !ok {
				continue
			}
		}
		items = append(items, b.Show+" "+b.Help)
	}
	const gap = "   "
	for len(items) > 2 && len(strings.Join(items, gap)) > w {
		items = append(items[:len(items)-3], items[len(items)-2:]...)
	}
	return strings.Join(items, gap)
}
