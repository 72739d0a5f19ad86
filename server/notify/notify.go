// Package notify tells people outside of the room what they must know: by webhook and by mail. What is to be told waits in the store (outbox)
// until it is delivered, so that neither a restart nor a dead mail server loses it, and no job ever waits for it. Run by server/daemon.
package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"labswarm/api"
	"labswarm/server/config"
	"labswarm/server/event"
	"labswarm/server/store"
)

// Triggers are the codes of the events that are told, with the subject of their message.
var Triggers = map[string]string{
	"job_ended": "job ended", "slot_held": "a PC is held and needs a person", "foreign_boot_server": "another server offers boot files",
	"image_damaged": "an image is damaged", "disk_low": "the disk is full", "store_restored": "the state came back from a copy", "schedule_missed": "a planned run was missed",
	"schedule_broken": "a schedule cannot run", "clock_doubt": "the clock is in doubt, no schedule starts",
}

// CodeFailed is the event of a message that could not be delivered.
const CodeFailed = "notify_failed"

const (
	prefix    = "outbox/"
	keyCursor = "outboxcursor" // number of the last event that was looked at
	batch     = 40             // events of one update: at most two messages each
	tooOld    = 24 * time.Hour // events of a time when nobody was to be told
	lookEvery = 5 * time.Second
	repeat    = 6 * time.Hour
)

// Delays are the waits before each try of a message. After the last it is given up, and an event says so.
var Delays = []time.Duration{0, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}

// Message is one message on one way.
type Message struct {
	ID    uint64    `json:"id"`
	Way   string    `json:"way"` // webhook or mail
	Event api.Event `json:"event"`
	Tries int       `json:"tries"`
	Next  time.Time `json:"next"` // not before
}

// Options are what a Notifier needs; all but the last two are required.
type Options struct {
	Store    store.Store
	Bell     *event.Bell
	Settings config.Notify
	Server   string                                        // name of this server, for people
	Details  func(ctx context.Context, e api.Event) string // more text for people, "" = none
	Log      *slog.Logger
	Delays   []time.Duration // nil = Delays
	sender   sender          // tests only: trusts other certificates
	look     time.Duration   // tests only: between two looks for what is due, 0 = lookEvery
}

// Notifier is used from many goroutines. Make it with New.
type Notifier struct {
	o Options

	mu       sync.Mutex
	settings config.Notify
	cursor   uint64
	ready    bool                 // cursor is read
	told     map[string]time.Time // events of no job, by code and text: a fault that stays is told again after repeat
}

// New returns a Notifier; it does nothing until Run.
func New(o Options) *Notifier {
	if o.Delays == nil {
		o.Delays = Delays
	}
	return &Notifier{o: o, settings: o.Settings, told: map[string]time.Time{}}
}

// Configure replaces the settings.
func (n *Notifier) Configure(s config.Notify) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.settings = s
}

func (n *Notifier) now() config.Notify {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settings
}

// ways lists where messages go.
func ways(s config.Notify) (out []string) {
	if s.Webhook != "" {
		out = append(out, "webhook")
	}
	if s.MailHost != "" {
		out = append(out, "mail")
	}
	return out
}

// Run takes in events and delivers messages until ctx ends; nil then.
func (n *Notifier) Run(ctx context.Context) error {
	wake, cancel := n.o.Bell.Subscribe()
	defer cancel()
	t := time.NewTicker(cmp.Or(n.o.look, lookEvery))
	defer t.Stop()
	for ctx.Err() == nil {
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = n.intake(ctx); err != nil && !errors.Is(err, context.Canceled) {
				n.o.Log.Error("take in events to tell", "err", err)
			}
		}
		if err := n.deliver(ctx); err != nil && !errors.Is(err, context.Canceled) {
			n.o.Log.Error("outbox", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-t.C:
		}
	}
	return nil
}

// start reads the place in the event log. Without one it begins with what happens from now on.
func (n *Notifier) start(ctx context.Context) error {
	if n.ready {
		return nil
	}
	err := n.o.Store.View(ctx, func(tx store.Tx) error {
		raw, err := tx.Get(keyCursor)
		if err != nil {
			return err
		}
		if raw == nil {
			n.cursor, err = event.Last(tx)
			return err
		}
		n.cursor, err = strconv.ParseUint(string(raw), 10, 64)
		return err
	})
	n.ready = err == nil
	return err
}

// intake turns new events into messages, in the transaction that moves the place in the log. Events that nobody is told of cost no write.
func (n *Notifier) intake(ctx context.Context) (more bool, err error) {
	to := ways(n.now())
	if err := n.start(ctx); err != nil {
		return false, err
	}
	var list []api.Event
	if err := n.o.Store.View(ctx, func(tx store.Tx) (err error) {
		list, err = event.Since(tx, n.cursor, batch)
		return err
	}); err != nil || len(list) == 0 {
		return false, err
	}
	last := list[len(list)-1].Seq
	var tell []api.Event
	for _, e := range list {
		if Triggers[e.Code] != "" && time.Since(e.Time) < tooOld && !n.repeated(e) {
			tell = append(tell, e)
		}
	}
	if len(tell) > 0 && len(to) > 0 {
		err = n.o.Store.Update(ctx, func(tx store.Tx) error {
			for _, e := range tell {
				for _, way := range to {
					id, err := tx.Seq("outbox")
					if err != nil {
						return err
					}
					if err := put(tx, Message{ID: id, Way: way, Event: e, Next: e.Time.Add(n.o.Delays[0])}); err != nil {
						return err
					}
				}
			}
			return tx.Put(keyCursor, strconv.AppendUint(nil, last, 10))
		})
	}
	if err == nil {
		n.cursor = last
	}
	return err == nil && len(list) == batch, err
}

// repeated reports whether the same was told lately; events of jobs are never the same.
func (n *Notifier) repeated(e api.Event) bool {
	if e.Job != 0 {
		return false
	}
	for k, at := range n.told {
		if e.Time.Sub(at) >= repeat {
			delete(n.told, k)
		}
	}
	k := e.Code + "\x00" + e.Text
	if _, known := n.told[k]; known {
		return true
	}
	n.told[k] = e.Time
	return false
}

func key(id uint64) string { return fmt.Sprintf("%s%016x", prefix, id) }

func put(tx store.Tx, m Message) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	return tx.Put(key(m.ID), raw)
}

// Pending counts the messages that were not delivered yet.
func (n *Notifier) Pending(ctx context.Context) (count int, err error) {
	err = n.o.Store.View(ctx, func(tx store.Tx) error {
		count = 0
		for range tx.Scan(prefix, "", 0) {
			count++
		}
		return nil
	})
	return count, err
}

// deliver tries what is due, one after the other.
func (n *Notifier) deliver(ctx context.Context) error {
	var due []Message
	err := n.o.Store.View(ctx, func(tx store.Tx) error {
		due = nil
		for k, raw := range tx.Scan(prefix, "", 1000) {
			var m Message
			if err := json.Unmarshal(raw, &m); err != nil {
				return fmt.Errorf("read %s: %w", k, err)
			}
			if !time.Now().Before(m.Next) {
				due = append(due, m)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range due {
		err := n.send(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err() // an end of the server is no failure of the message
		}
		if err := n.settle(ctx, m, err); err != nil {
			return err
		}
	}
	return nil
}

func (n *Notifier) send(ctx context.Context, m Message) error {
	s := n.now()
	var details string
	if n.o.Details != nil {
		details = n.o.Details(ctx, m.Event)
	}
	switch {
	case m.Way == "webhook" && s.Webhook != "":
		return n.o.sender.webhook(ctx, s, n.o.Server, m, details)
	case m.Way == "mail" && s.MailHost != "":
		return n.o.sender.mail(ctx, s, n.o.Server, m, details)
	}
	return nil // that way was switched off meanwhile: nobody waits for it
}

// settle removes a message that was delivered, plans the next try, or gives it up with an event.
func (n *Notifier) settle(ctx context.Context, m Message, failure error) error {
	if failure == nil {
		return n.o.Store.Update(ctx, func(tx store.Tx) error { return tx.Delete(key(m.ID)) })
	}
	m.Tries++
	n.o.Log.Warn("message not delivered", "way", m.Way, "code", m.Event.Code, "try", m.Tries, "err", failure)
	if m.Tries < len(n.o.Delays) {
		m.Next = time.Now().UTC().Add(n.o.Delays[m.Tries])
		return n.o.Store.Update(ctx, func(tx store.Tx) error { return put(tx, m) })
	}
	err := n.o.Store.Update(ctx, func(tx store.Tx) error {
		if err := tx.Delete(key(m.ID)); err != nil {
			return err
		}
		_, err := event.Append(tx, api.Event{Time: time.Now().UTC(), Level: "error", Code: CodeFailed, Job: m.Event.Job, Room: m.Event.Room,
			Text: fmt.Sprintf("nobody was told of event %d (%s): %s failed %d times, at last: %.300s", m.Event.Seq, m.Event.Code, m.Way, m.Tries, failure)})
		return err
	})
	if err == nil {
		n.o.Bell.Ring()
	}
	return err
}

// subject is one line for people.
func subject(server string, e api.Event) string {
	s := "labswarm " + server + ": " + Triggers[e.Code]
	if e.Job != 0 {
		s = fmt.Sprintf("labswarm %s: job %d: %s", server, e.Job, e.Text)
	}
	return strings.Join(strings.Fields(s), " ")
}
