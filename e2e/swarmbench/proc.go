package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labswarm/internal/testnet"
)

// proc is a running child and what it has said.
type proc struct {
	*testnet.Process
	cmd     *exec.Cmd
	log     *os.File
	gate    *os.File  // its standard input: a line lets it begin
	started time.Time // when it was let through

	mu      sync.Mutex
	part    []byte
	words   map[string]time.Time // first time a line began with this word
	note    doneNote
	parent  string
	have    int                  // cells, as it said last
	accused map[string]time.Time // when it first accused whom
	last    map[string]time.Time // when it last got bytes from whom
	rss     int64                // bytes, peak
	base    time.Duration        // processor time before it was let through
	cpu     time.Duration        // processor time since, when last looked at
}

// Write takes in the child's output; called by os/exec.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part = append(p.part, b...)
	for {
		line, rest, ok := bytes.Cut(p.part, []byte("\n"))
		if !ok {
			if len(p.part) > 1<<16 {
				p.part = nil // a progress bar, no line of ours
			}
			return len(b), nil
		}
		p.part = rest
		p.heard(string(line))
	}
}

// heard takes in one line; p.mu is held.
func (p *proc) heard(line string) {
	now := time.Now()
	word, arg, _ := strings.Cut(line, " ")
	if _, known := p.words[word]; !known {
		p.words[word] = now
	}
	who := strings.Trim(arg, `"`)
	switch word {
	case lineDone:
		_ = json.Unmarshal([]byte(arg), &p.note) // some say nothing more
	case lineParent:
		p.parent = who
	case lineAccuse:
		if _, again := p.accused[who]; !again {
			p.accused[who] = now
		}
	case lineHave:
		p.have, _ = strconv.Atoi(arg)
	case lineFrom:
		p.last[who] = now
	}
}

func (p *proc) said(word string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.words[word]
	return t, ok
}

// watch notes peak memory and processor time, as long as the child lives.
func (p *proc) watch() {
	used, cerr := cpuClock(p.Pid)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil || cerr != nil {
		return
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return
	}
	kib, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.rss, p.cpu = max(p.rss, kib<<10), max(p.cpu, used-p.base)
	p.mu.Unlock()
}

// cpuClock is the processor time of all threads of a process since its start
// (clock_getcpuclockid(3): the clock's number is made from the process's).
func cpuClock(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("read processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// used is the processor time since the child was let through, of one that has
// ended by itself, too.
func (p *proc) used() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.cmd.ProcessState; st != nil && st.Success() {
		return max(p.cpu, st.UserTime()+st.SystemTime()-p.base)
	}
	return p.cpu
}

// launch starts a child in host i's namespace; it waits at the gate.
func (r *run) launch(i int, c child) (*proc, error) {
	log, err := os.CreateTemp(r.env.dir, fmt.Sprintf("log-%s-%d-", r.scheme.name, i))
	if err != nil {
		return nil, err
	}
	in, gate, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	name, args := c.name, c.args
	if !c.gated {
		name, args = "sh", append([]string{"-c", "echo " + lineGate + "; read line; exec \"$@\"", "sh", c.name}, c.args...)
	}
	p := &proc{cmd: r.room.command(i, name, args...), log: log, gate: gate, words: map[string]time.Time{},
		accused: map[string]time.Time{}, last: map[string]time.Time{}}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, p, log
	p.Process, err = testnet.Start(p.cmd)
	if err := errors.Join(err, in.Close()); err != nil {
		return nil, errors.Join(err, gate.Close(), log.Close())
	}
	return p, nil
}

// let lets the child begin. Its processor time counts from now.
func (p *proc) let() error {
	base, err := cpuClock(p.Pid)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.base, p.started = base, time.Now()
	p.mu.Unlock()
	if _, err := p.gate.WriteString("go\n"); err != nil {
		return fmt.Errorf("let process %d begin: %w", p.Pid, err)
	}
	return nil
}

// end kills the child and closes its files.
func (p *proc) end() error { return errors.Join(p.Kill(), p.gate.Close(), p.log.Close()) }

// tail is the end of what the child wrote to its standard error.
func (p *proc) tail() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-600):]))
}
