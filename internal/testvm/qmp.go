package testvm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Event is one asynchronous message of QEMU: RESET, SHUTDOWN, STOP, ...
type Event struct {
	Name   string
	Reason string // RESET, SHUTDOWN: guest-reset, guest-shutdown, host-qmp-quit, ...
	Guest  bool   // the guest asked for it
}

// qmp is a client of QEMU's control socket (docs/interop/qmp-spec). Its reading
// goroutine ends when the socket closes.
type qmp struct {
	conn    net.Conn
	mu      sync.Mutex // one command at a time
	replies chan qmpMessage
	done    chan struct{}
}

type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Guest  bool   `json:"guest"`
		Reason string `json:"reason"`
	} `json:"data"`
}

// newQMP speaks the greeting on conn; onEvent is called from the reading goroutine
// and must not run commands itself.
func newQMP(conn net.Conn, onEvent func(Event)) (*qmp, error) {
	q := &qmp{conn: conn, replies: make(chan qmpMessage, 1), done: make(chan struct{})}
	go q.read(onEvent)
	if _, err := q.command("qmp_capabilities", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return q, nil
}

func (q *qmp) read(onEvent func(Event)) {
	defer close(q.done)
	sc := bufio.NewScanner(q.conn)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	for sc.Scan() {
		var m qmpMessage
		if err := json.Unmarshal(sc.Bytes(), &m); err != nil {
			continue // the greeting's shape differs; nothing else is expected here
		}
		switch {
		case m.Event != "":
			onEvent(Event{Name: m.Event, Reason: m.Data.Reason, Guest: m.Data.Guest})
		case m.Return != nil || m.Error != nil:
			select {
			case q.replies <- m:
			default: // a reply nobody waits for any more
			}
		}
	}
}

// command runs one command; at most 10 s.
func (q *qmp) command(name string, args any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	req := map[string]any{"execute": name}
	if args != nil {
		req["arguments"] = args
	}
	b, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("send %s to QEMU: %w", name, err)
	}
	select {
	case m := <-q.replies:
		if m.Error != nil {
			return nil, fmt.Errorf("QEMU refused %s: %s", name, m.Error.Desc)
		}
		return m.Return, nil
	case <-q.done:
		return nil, fmt.Errorf("run %s: QEMU has ended", name)
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("run %s: no answer from QEMU for 10 s", name)
	}
}
