package peer

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// gulp is how many bytes of a piece that is being sent to us are waited for at
	// once. The kernel makes room for as much and, as it sees how we read, for more.
	gulp = 256 << 10
	// sip is how few are not worth telling the kernel.
	sip = 1 << 10
)

// intake reads from a socket and is woken as seldom as can be. On a link of
// 100 Mb/s a packet comes every 0.1 ms, and waking a program costs more than all
// else that is done with the packet. In the middle of a piece it is known what
// comes: there the kernel is told to wait for more of it (SO_RCVLOWAT), but never
// beyond the end of the piece. So no piece, and no word outside of one, comes later
// than without.
type intake struct {
	rc      syscall.RawConn
	try     func(fd uintptr) bool
	records *records // of a TLS connection, else nil

	// Of the reading goroutine. Positions count bytes handed out since the
	// connection's beginning.
	pos  int64
	sure int64 // up to here bytes are certain to come
	b    []byte
	n    int
	err  error

	mu    sync.Mutex
	low   int // SO_RCVLOWAT as the kernel has it; 0 stands for 1
	count int // waits; the housekeeping sees by it whether one goes on
	seen  int
}

// newIntake returns the reader of a connection, and what reads through it.
func newIntake(nc net.Conn) (*intake, io.Reader, error) {
	tc := rawTCP(nc)
	if tc == nil {
		return nil, nil, fmt.Errorf("read from %v: not TCP", nc.RemoteAddr())
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("reach the socket: %w", err)
	}
	in := &intake{rc: rc}
	in.try = in.once
	if t, ok := nc.(*secured); ok {
		in.records = &t.out.records
		in.pos = t.got
		t.out.in = in
		return in, tallied{t, in}, nil
	}
	return in, tallied{in, in}, nil
}

// tallied counts what is handed out.
type tallied struct {
	r  io.Reader
	in *intake
}

func (t tallied) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.in.pos += int64(n)
	return n, err
}

// expect says that n bytes, from what was handed out last on, are certain to come.
func (in *intake) expect(n int) { in.sure = in.pos + int64(n) }

// Read reads from the socket what is there, and waits when there is nothing.
func (in *intake) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	in.b = b
	err := in.rc.Read(in.try)
	in.b = nil
	switch {
	case err != nil:
		return 0, err
	case in.err != nil:
		return 0, in.err
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

// once tries to read; false: nothing is there, wait. The system call never waits,
// so that Go's scheduler need not hear of it: that alone would wake a thread.
func (in *intake) once(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&in.b[0])), uintptr(len(in.b)))
		switch errno {
		case 0:
			in.n, in.err = int(n), nil
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			in.wait(int(fd))
			return false
		default:
			in.n, in.err = 0, os.NewSyscallError("read", errno)
			return true
		}
	}
}

// wait tells the kernel how many bytes to wait for.
func (in *intake) wait(fd int) {
	low := in.sure - in.pos
	if r := in.records; r != nil {
		low = int64(r.left) + max(in.sure-r.plain, 0)
	}
	if low = min(low, gulp); low < sip {
		low = 0
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.count++
	in.set(fd, int(low))
}

// set tells the kernel. in.mu is held.
func (in *intake) set(fd, low int) {
	if low == in.low {
		return
	}
	v := int32(max(low, 1))
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno == 0 {
		in.low = low
	}
}

// hurry ends a wait that goes on since it was called last: what was certain does
// not come.
func (in *intake) hurry() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.low > 0 && in.count == in.seen {
		_ = in.rc.Control(func(fd uintptr) { in.set(int(fd), 0) }) // closed: nobody waits
	}
	in.seen = in.count
}

// records follows the records of a TLS connection (RFC 8446 5.1) from the first
// one after the handshake on.
type records struct {
	on    bool
	head  [5]byte
	have  int   // bytes of head
	left  int   // bytes of the record to come
	plain int64 // content of the records that have begun, bytes
}

// recordRest is what a record has besides its content: its type and a tag.
const recordRest = 1 + 16

func (r *records) feed(b []byte) {
	for r.on && len(b) > 0 {
		if r.left > 0 {
			k := min(r.left, len(b))
			r.left, b = r.left-k, b[k:]
			continue
		}
		k := copy(r.head[r.have:], b)
		r.have, b = r.have+k, b[k:]
		if r.have == len(r.head) {
			r.have, r.left = 0, int(r.head[3])<<8|int(r.head[4])
			r.plain += int64(max(r.left-recordRest, 0))
		}
	}
}
