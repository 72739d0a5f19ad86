package app

import (
	"context"
	"runtime/debug"
	"time"

	tea "charm.land/bubbletea/v2"

	"labswarm/api"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen/help"
	"labswarm/tui/screen/host"
	"labswarm/tui/screen/rooms"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// Messages of the console, beside those of the terminal.
type (
	pictureMsg  struct{ s *snapshot.Snapshot }
	secondMsg   struct{} // the age grows
	timelineMsg struct {
		key   slotKey
		slot  *api.Slot // nil: the job has no such host, or err
		cause string
	}
)

// slotKey is what a timeline was read for: when one of it changes, there is
// something new to read.
type slotKey struct {
	host    string
	job     uint64
	state   api.State
	since   time.Time
	attempt int
}

// jobs is the part of api/client.Client that the model needs.
type jobs interface {
	Job(ctx context.Context, id uint64) (api.Job, error)
}

const timelineLimit = 5 * time.Second // for one reading

// refreshing is the note until the next picture.
const refreshing = "reading everything again"

// model is the state of the console. Only the program's event loop touches it.
type model struct {
	ctx     context.Context // of the program: bounds what its commands read
	jobs    jobs
	refresh func()
	keys    keymap.Map
	th      *theme.Theme

	s      *snapshot.Snapshot
	size   component.Size
	screen keymap.Screen
	below  keymap.Screen // what help returns to
	rooms  rooms.State
	host   host.State
	help   help.State
	note   string // about the last key, until the next one

	want   slotKey // timeline on the screen
	asking bool    // a reading is under way

	now    time.Time
	frame  string
	frames int // drawn so far
	draw   func(*model) string
	crash  *PanicError
}

func newModel(ctx context.Context, j jobs, refresh func(), th *theme.Theme) *model {
	return &model{
		ctx: ctx, jobs: j, refresh: refresh, keys: keymap.Default(), th: th,
		s: &snapshot.Snapshot{}, screen: keymap.Rooms, now: time.Now(), draw: (*model).render,
	}
}

// Init does nothing: Run's goroutines send what the model needs. A timer of
// bubbletea would outlive the program by up to a second.
func (m *model) Init() tea.Cmd { return nil }

// View returns the frame that Update drew. Bracketed paste stays on: pasted
// text arrives as one message, which is ignored, and never acts as keys.
func (m *model) View() tea.View {
	v := tea.NewView(m.frame)
	v.AltScreen = true
	return v
}

// Update applies one message and draws what it changed. A panic, also in a
// screen, ends the program in order: the terminal is restored.
func (m *model) Update(msg tea.Msg) (_ tea.Model, cmd tea.Cmd) {
	defer func() {
		if r := recover(); r != nil {
			m.crash = &PanicError{Value: r, Stack: debug.Stack()}
			cmd = tea.Quit
		}
	}()
	m.now = time.Now()
	changed, cmd := m.apply(msg)
	if changed && m.size.W > 0 {
		m.frame = m.draw(m)
		m.frames++
	}
	return m, cmd
}

// apply reports whether there is something new to draw.
func (m *model) apply(msg tea.Msg) (changed bool, _ tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.size = component.Size{W: msg.Width, H: msg.Height}
		return true, nil
	case secondMsg:
		if m.host.Cause != "" {
			m.want = slotKey{} // try again
		}
		return true, m.readTimeline()
	case pictureMsg:
		// A picture that only says that the server lives changes nothing but
		// the age, and that is drawn once a second anyhow.
		same := msg.s.SameAs(m.s)
		m.s = msg.s
		if m.note == refreshing {
			m.note, same = "", false
		}
		return !same, m.readTimeline()
	case timelineMsg:
		return m.gotTimeline(msg), m.readTimeline()
	case tea.KeyPressMsg:
		return true, m.press(msg.String())
	}
	return false, nil
}

func (m *model) render() string {
	foot := component.Foot{Keys: m.keys, Message: m.note}
	switch m.screen {
	case keymap.Host:
		return host.Render(m.s, m.host, foot, m.size, m.th, m.now)
	case keymap.Help:
		return help.Render(m.s, m.help, foot, m.size, m.th, m.now)
	}
	return rooms.Render(m.s, m.rooms, foot, m.size, m.th, m.now)
}

func (m *model) keyState() keymap.State {
	if m.screen == keymap.Host {
		return host.KeyState(m.s, m.host)
	}
	return rooms.KeyState(m.s, m.rooms)
}

// press is the router of keys.
func (m *model) press(key string) tea.Cmd {
	m.note = ""
	id, why, ok := m.keys.Find(m.screen, key, m.keyState())
	if !ok {
		return nil
	}
	if why != "" {
		m.note = why
		return nil
	}
	switch id {
	case keymap.Quit, keymap.QuitNow:
		return tea.Quit
	case keymap.ShowHelp:
		m.toggleHelp()
		return nil
	case keymap.Refresh:
		m.want = slotKey{}
		m.refresh()
		m.note = refreshing
		return m.readTimeline()
	}
	switch m.screen {
	case keymap.Help:
		m.pressHelp(id)
	case keymap.Host:
		return m.pressHost(id)
	default:
		return m.pressRooms(id)
	}
	return nil
}

func (m *model) toggleHelp() {
	if m.screen == keymap.Help {
		m.screen = m.below
		return
	}
	m.below, m.help = m.screen, help.State{Of: m.screen}
	m.screen = keymap.Help
}

func (m *model) pressHelp(id keymap.ID) {
	if id == keymap.Back {
		m.screen = m.below
		return
	}
	m.help = m.help.Scroll(id, m.keys, m.size)
}

func (m *model) pressRooms(id keymap.ID) tea.Cmd {
	if id != keymap.Open {
		m.rooms = m.rooms.Move(id, m.s, m.size)
		return nil
	}
	if r, h := m.rooms.Selected(m.s, m.size); h != nil {
		m.screen, m.host = keymap.Host, host.State{Room: r.Name, Host: h.Name}
	}
	return m.readTimeline()
}

func (m *model) pressHost(id keymap.ID) tea.Cmd {
	switch id {
	case keymap.Back:
		m.rooms.Room, m.rooms.Host = m.host.Room, m.host.Host
		m.screen = keymap.Rooms
	case keymap.Left:
		m.host = m.host.Next(m.s, -1)
	case keymap.Right:
		m.host = m.host.Next(m.s, +1)
	default:
		m.host = m.host.Scroll(id, m.s, m.size, m.now)
	}
	return m.readTimeline()
}

// readTimeline asks for the timeline on the screen when the one at hand is of
// another host, or older than its state. One reading at a time.
func (m *model) readTimeline() tea.Cmd {
	if m.screen != keymap.Host || m.asking {
		return nil
	}
	key, ok := m.slotKey()
	if !ok || key == m.want {
		return nil
	}
	m.want, m.asking = key, true
	ctx, j := m.ctx, m.jobs
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, timelineLimit)
		defer cancel()
		job, err := j.Job(ctx, key.job)
		if err != nil {
			return timelineMsg{key: key, cause: snapshot.Clean(err.Error())}
		}
		for i := range job.Slots {
			s := &job.Slots[i]
			if snapshot.Clean(s.Host) == key.host {
				snapshot.CleanSlot(s)
				return timelineMsg{key: key, slot: s}
			}
		}
		return timelineMsg{key: key, cause: "the job does not hold this host any more"}
	}
}

func (m *model) slotKey() (slotKey, bool) {
	i, ok := m.s.Find(m.host.Room)
	if !ok {
		return slotKey{}, false
	}
	k, ok := m.s.Rooms[i].Find(m.host.Host)
	if !ok {
		return slotKey{}, false
	}
	h := &m.s.Rooms[i].Hosts[k]
	if h.Slot == nil {
		return slotKey{}, false
	}
	return slotKey{h.Name, h.Job.ID, h.Slot.State, h.Slot.Since, h.Slot.Attempt}, true
}

// gotTimeline takes an answer if its host is still on the screen.
func (m *model) gotTimeline(msg timelineMsg) bool {
	m.asking = false
	if msg.key.host != m.host.Host {
		m.want = slotKey{}
		return false
	}
	m.host.Loaded, m.host.Cause = true, msg.cause
	if msg.slot != nil {
		m.host.Timeline = msg.slot.Timeline
	}
	return true
}
