package app

import (
	"cmp"
	"context"
	"runtime/debug"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"labswarm/api/client"
	"labswarm/tui/component"
	"labswarm/tui/keymap"
	"labswarm/tui/screen"
	"labswarm/tui/screen/help"
	"labswarm/tui/screen/rooms"
	"labswarm/tui/snapshot"
	"labswarm/tui/theme"
)

// Messages of the console, beside those of the terminal.
type (
	pictureMsg struct{ s *snapshot.Snapshot }
	secondMsg  struct{} // the age grows
	readMsg    struct {
		page  int // its id
		key   string
		data  any
		cause string
	}
	doneMsg struct {
		page   int
		done   screen.Done
		failed bool
	}
)

// The pace of readings and actions.
const (
	readLimit = 5 * time.Second // for one reading
	doLimit   = 30 * time.Second
)

// refreshing is the note until the next picture.
const refreshing = "reading everything again"

// page is a view with what was read for it.
type page struct {
	id    int
	view  screen.View
	query string    // the key of the last reading
	at    time.Time // when it was asked for
	data  any
	cause string
	busy  bool // a reading is under way
}

// model is the state of the console. Only the program's event loop touches it.
type model struct {
	ctx      context.Context // of the program: bounds what its commands read
	client   *client.Client
	refresh  func()
	keys     keymap.Map
	th       *theme.Theme
	readOnly bool

	s       *snapshot.Snapshot
	size    component.Size
	stack   []*page // never empty; the last one is on the screen
	pages   int     // made so far
	command command // the ":" line
	note    string  // about the last key, until the next one
	acting  string  // what the server is asked to do, "" = nothing

	now    time.Time
	frame  string
	frames int // drawn so far
	draw   func(*model) string
	crash  *PanicError
}

func newModel(ctx context.Context, c *client.Client, refresh func(), th *theme.Theme) *model {
	m := &model{
		ctx: ctx, client: c, refresh: refresh, keys: keymap.Default(), th: th,
		s: &snapshot.Snapshot{}, now: time.Now(), draw: (*model).render,
	}
	m.open(rooms.State{})
	return m
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
		if p := m.top(); p.cause != "" {
			p.query = "" // try again
		}
		return true, m.read()
	case pictureMsg:
		// A picture that only says that the server lives changes nothing but
		// the age, and that is drawn once a second anyhow.
		same := msg.s.SameAs(m.s)
		m.s = msg.s
		if m.note == refreshing {
			m.note, same = "", false
		}
		return !same, m.read()
	case readMsg:
		return m.gotRead(msg), m.read()
	case codeMsg:
		return true, m.gotCode(msg)
	case doneMsg:
		return true, m.gotDone(msg)
	case tea.KeyPressMsg:
		key := msg.String()
		if msg.Text != "" {
			key = msg.Text
		}
		return true, m.press(key, msg.String())
	}
	return false, nil
}

func (m *model) top() *page { return m.stack[len(m.stack)-1] }

func (m *model) open(v screen.View) {
	m.pages++
	m.stack = append(m.stack, &page{id: m.pages, view: v})
}

// in is what the page on the screen is drawn from.
func (m *model) in() screen.In {
	p := m.top()
	note := m.note
	if m.acting != "" {
		note = m.acting + " ..."
	}
	if m.command.open {
		note = m.command.line()
	}
	return screen.In{S: m.s, Keys: m.keys, Note: note, Size: m.size, Th: m.th, Now: m.now, Data: p.data, Cause: p.cause}
}

func (m *model) render() string { return m.top().view.Render(m.in()) }

// press is the router of keys. text is what was typed, name the key's name.
func (m *model) press(text, name string) tea.Cmd {
	if name == "ctrl+c" {
		return tea.Quit
	}
	m.note = ""
	if m.command.open {
		return m.typeCommand(text)
	}
	p := m.top()
	if t, ok := p.view.(screen.Typist); ok && t.Typing() {
		v, effect := t.Type(text, m.in())
		p.view = v
		return m.take(effect)
	}
	id, why, ok := m.keys.Find(p.view.Screen(), name, m.keyState())
	if !ok {
		return nil
	}
	if why != "" {
		m.note = why
		return nil
	}
	if cmd, done := m.pressEverywhere(id); done {
		return cmd
	}
	v, effect := p.view.Press(id, m.in())
	p.view = v
	return m.take(effect)
}

// keyState is what the view says, and what holds for all of them.
func (m *model) keyState() keymap.State {
	st := m.top().view.KeyState(m.in())
	st.ReadOnly, st.Stale = m.readOnly, m.s.Stale(m.now)
	return st
}

// pressEverywhere applies the keys that mean the same on every screen.
func (m *model) pressEverywhere(id keymap.ID) (_ tea.Cmd, done bool) {
	switch id {
	case keymap.Quit, keymap.QuitNow:
		return tea.Quit, true
	case keymap.ShowHelp:
		if of := m.top().view.Screen(); of != keymap.Help {
			m.open(help.State{Of: of})
			return nil, true
		}
	case keymap.Command:
		m.command = m.command.begin()
		return nil, true
	case keymap.Refresh:
		m.top().query = ""
		m.refresh()
		m.note = refreshing
		return m.read(), true
	}
	if v := topView(id); v != nil {
		return m.goTo(v), true
	}
	return nil, false
}

// goTo shows a top-level screen; it is as it was left if it lies at the bottom
// of the stack.
func (m *model) goTo(v screen.View) tea.Cmd {
	bottom := m.stack[0]
	m.stack = m.stack[:0]
	if bottom.view.Screen() == v.Screen() {
		m.stack = append(m.stack, bottom)
	} else {
		m.open(v)
	}
	return m.read()
}

// take carries out what a key asked for.
func (m *model) take(e screen.Effect) tea.Cmd {
	if e.Note != "" {
		m.note = e.Note
	}
	switch {
	case e.Back && len(m.stack) > 1:
		m.back()
	case e.Go != nil:
		m.stack = m.stack[:0]
		m.open(e.Go)
	}
	if e.Open != nil {
		m.open(e.Open)
	}
	if word, name, _ := strings.Cut(e.Name, " "); word != "" {
		return m.goToNamed(word, name)
	}
	if e.Do != nil {
		return m.do(*e.Do)
	}
	return m.read()
}

// back closes the view on the screen. A list below selects what was looked at
// last (a host's neighbours can be walked through).
func (m *model) back() {
	closed := m.top().view
	m.stack = m.stack[:len(m.stack)-1]
	if l, ok := closed.(screen.Leaver); ok {
		m.top().view = l.Leave(m.top().view)
	}
}

// do asks the server for an action, unless the picture is too old to act on.
func (m *model) do(a screen.Action) tea.Cmd {
	switch {
	case m.readOnly:
		m.note = a.Doing + ": this console is read-only"
	case m.s.Stale(m.now):
		m.note = a.Doing + ": not while the picture is old; wait for the server"
	case m.acting != "":
		m.note = "still busy: " + m.acting
	default:
		m.acting = a.Doing
		ctx, c, id := m.ctx, m.client, m.top().id
		return func() tea.Msg {
			ctx, cancel := context.WithTimeout(ctx, doLimit)
			defer cancel()
			done, err := a.Do(ctx, c)
			if err != nil {
				return doneMsg{page: id, done: screen.Done{Said: a.Doing + ": " + err.Error()}, failed: true}
			}
			return doneMsg{page: id, done: done}
		}
	}
	return nil
}

func (m *model) gotDone(msg doneMsg) tea.Cmd {
	m.acting, m.note = "", snapshot.Clean(msg.done.Said)
	m.top().query = ""
	m.refresh()
	if msg.failed || m.top().id != msg.page { // the person went elsewhere meanwhile
		return m.read()
	}
	if msg.done.Back && len(m.stack) > 1 {
		m.back()
	}
	if msg.done.Then != nil {
		m.open(msg.done.Then)
	}
	return m.read()
}

// read asks for what the view wants beside the picture, when that is another
// thing than it has or is due again. One reading at a time and page.
func (m *model) read() tea.Cmd {
	p := m.top()
	q := p.view.Query(m.s)
	if q.Key == "" || p.busy {
		return nil
	}
	if q.Key == p.query && (q.Every == 0 || m.now.Sub(p.at) < q.Every) {
		return nil
	}
	p.query, p.at, p.busy = q.Key, m.now, true
	ctx, c, id := m.ctx, m.client, p.id
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, cmp.Or(q.Limit, readLimit))
		defer cancel()
		data, err := q.Read(ctx, c)
		if err != nil {
			return readMsg{page: id, key: q.Key, cause: snapshot.Clean(err.Error())}
		}
		return readMsg{page: id, key: q.Key, data: data}
	}
}

// gotRead takes an answer if its page is still there and still wants it.
func (m *model) gotRead(msg readMsg) bool {
	for _, p := range m.stack {
		if p.id != msg.page {
			continue
		}
		p.busy = false
		if want := p.view.Query(m.s); want.Key != msg.key {
			p.query = ""
			return false
		}
		p.cause = msg.cause
		if msg.cause == "" {
			p.data = msg.data
		}
		return p == m.top()
	}
	return false
}
