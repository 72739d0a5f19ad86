package testvm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"labswarm/internal/testnet"
)

// Names inside Config.Dir.
const (
	serialLog  = "serial.log"
	serialSock = "serial.sock"
	qmpSock    = "qmp.sock"
	qemuLog    = "qemu.log"
)

// VM is one machine: off after New, on after Start. It can be started again after
// it ended; the serial log and the firmware's variables go on.
//
// All methods may be called from several goroutines.
type VM struct {
	Config
	onEvent func(Event)

	life sync.Mutex // held by Start and Kill: one change of power at a time
	log  *os.File   // of QEMU itself; guarded by life

	mu    sync.Mutex // guards what follows
	proc  *testnet.Process
	qmp   *qmp
	reset int64 // length of the serial log at the last reset or start
}

// New prepares a machine and its folder; nothing runs yet.
func New(c Config) (*VM, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of terminal %s: %w", c.Name, err)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("find folder of terminal %s: %w", c.Name, err)
	}
	c.Dir = dir
	return &VM{Config: c, onEvent: func(Event) {}}, nil
}

// OnEvent sets the function called for every event of QEMU, from a goroutine of
// the machine. It must not call methods that talk to QEMU. Set it before Start.
func (v *VM) OnEvent(f func(Event)) { v.onEvent = f }

// Start switches the machine on. ctx bounds the start only.
func (v *VM) Start(ctx context.Context) error {
	v.life.Lock()
	defer v.life.Unlock()
	if v.Running() {
		return fmt.Errorf("start terminal %s: it runs already", v.Name)
	}
	if err := v.kill(); err != nil { // releases what a machine that ended by itself held
		return err
	}
	args, err := v.args()
	if err != nil {
		return fmt.Errorf("start terminal %s: %w", v.Name, err)
	}
	for _, s := range []string{qmpSock, serialSock} {
		if err := os.Remove(filepath.Join(v.Dir, s)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("start terminal %s: %w", v.Name, err)
		}
	}
	if v.log, err = os.Create(filepath.Join(v.Dir, qemuLog)); err != nil {
		return fmt.Errorf("start terminal %s: %w", v.Name, err)
	}
	name := qemu
	if v.Namespace != "" {
		name, args = "ip", append([]string{"netns", "exec", v.Namespace, qemu}, args...)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = v.Dir, v.log, v.log
	v.markReset()
	proc, err := testnet.Start(cmd)
	if err != nil {
		return errors.Join(fmt.Errorf("start terminal %s: %w", v.Name, err), v.log.Close())
	}
	v.mu.Lock()
	v.proc = proc
	v.mu.Unlock()
	if err := v.connect(ctx, proc); err != nil {
		return errors.Join(fmt.Errorf("start terminal %s: %w", v.Name, err), v.kill())
	}
	return nil
}

// connect opens the control socket and releases the processor.
func (v *VM) connect(ctx context.Context, proc *testnet.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := v.dial(ctx, qmpSock)
		if err == nil {
			q, err := newQMP(conn, v.event)
			if err != nil {
				return err
			}
			v.mu.Lock()
			v.qmp = q
			v.mu.Unlock()
			_, err = q.command("cont", nil)
			return err
		}
		select {
		case <-proc.Done():
			return fmt.Errorf("QEMU ended at once: %s", v.qemuSaid())
		case <-ctx.Done():
			return fmt.Errorf("QEMU's control socket did not open: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// dial connects to a socket in the machine's folder. The address of a unix socket
// holds at most 107 bytes, so a long folder is reached through /proc.
func (v *VM) dial(ctx context.Context, sock string) (net.Conn, error) {
	dir, err := os.Open(v.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // read side only
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+sock)
}

func (v *VM) event(e Event) {
	if e.Name == "RESET" {
		v.markReset()
	}
	v.onEvent(e)
}

func (v *VM) markReset() {
	n := v.SerialLen()
	v.mu.Lock()
	v.reset = n
	v.mu.Unlock()
}

func (v *VM) qemuSaid() string {
	b, err := os.ReadFile(filepath.Join(v.Dir, qemuLog))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// process is the running or last QEMU; nil when there is none.
func (v *VM) process() *testnet.Process {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.proc
}

// Running reports whether the machine is on.
func (v *VM) Running() bool {
	p := v.process()
	if p == nil {
		return false
	}
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

// Done is closed when the machine has ended; nil while there is none: before the
// first start and after Kill.
func (v *VM) Done() <-chan struct{} {
	p := v.process()
	if p == nil {
		return nil
	}
	return p.Done()
}

// Kill cuts the power: SIGKILL, nothing is flushed by the guest. A machine that is
// off is no error.
func (v *VM) Kill() error {
	v.life.Lock()
	defer v.life.Unlock()
	return v.kill()
}

// kill is Kill for those who hold life.
func (v *VM) kill() error {
	v.mu.Lock()
	p, q := v.proc, v.qmp
	v.proc, v.qmp = nil, nil
	v.mu.Unlock()
	var err error
	if p != nil {
		err = p.Kill()
	}
	if q != nil {
		_ = q.conn.Close() // its peer is gone
		<-q.done
	}
	if v.log != nil {
		err = errors.Join(err, v.log.Close())
		v.log = nil
	}
	return err
}

// control runs a QMP command on a running machine.
func (v *VM) control(name string, args any) error {
	v.mu.Lock()
	q := v.qmp
	v.mu.Unlock()
	if q == nil {
		return fmt.Errorf("%s on terminal %s: it is off", name, v.Name)
	}
	_, err := q.command(name, args)
	return err
}

// Reset presses the reset button.
func (v *VM) Reset() error { return v.control("system_reset", nil) }

// Pause stops the processor; what the guest wrote is in the disk file then.
func (v *VM) Pause() error { return v.control("stop", nil) }

// Resume lets a paused processor go on.
func (v *VM) Resume() error { return v.control("cont", nil) }

// SetLink plugs or pulls the network cable.
func (v *VM) SetLink(up bool) error {
	return v.control("set_link", map[string]any{"name": "n0", "up": up})
}
