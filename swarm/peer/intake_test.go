package peer

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// lowNow is what the kernel was told to wait for.
func (in *intake) lowNow() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.low
}

// What is certain to come is taken in gulps, its end at once, and what does not come
// after all keeps nobody waiting.
func TestIntakeWaits(t *testing.T) {
	a, b := tcpPair(t)
	in, r, err := newIntake(b)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int)
	read := func() {
		buf := make([]byte, 1<<20)
		n, err := r.Read(buf)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}
	send := func(n int) {
		if _, err := a.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	const piece = gulp + gulp/4
	in.expect(piece)
	go read()
	until(t, "it waits for a gulp", func() bool { return in.lowNow() == gulp })
	send(1000)
	send(gulp - 1000)
	if n := <-got; n != gulp {
		t.Errorf("woken for %d bytes; want %d", n, gulp)
	}
	go read()
	until(t, "it waits for the piece's end", func() bool { return in.lowNow() == piece-gulp })
	send(piece - gulp)
	if n := <-got; n != piece-gulp {
		t.Errorf("woken for %d bytes; want %d", n, piece-gulp)
	}
	go read()
	until(t, "it waits for anything", func() bool { return in.lowNow() == 0 })
	send(1)
	if n := <-got; n != 1 {
		t.Errorf("woken for %d bytes; want 1", n)
	}
	in.expect(piece)
	go read()
	until(t, "it waits for a gulp again", func() bool { return in.lowNow() == gulp })
	send(1000)
	in.hurry()
	in.hurry() // the housekeeping comes a second time
	if n := <-got; n != 1000 {
		t.Errorf("hurried for %d bytes; want 1000", n)
	}
}

// Bytes arrive as they were sent, in whatever portions.
func TestOutletWritesAll(t *testing.T) {
	a, b := tcpPair(t)
	o, err := newOutlet(a)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	bufs := [][]byte{[]byte("head"), nil, make([]byte, 3<<20), {}, []byte("tail")}
	for i := range bufs[2] {
		bufs[2][i] = byte(i * i >> 8)
	}
	for _, x := range bufs {
		want = append(want, x...)
	}
	done := make(chan []byte)
	go func() {
		_, r, err := newIntake(b)
		if err != nil {
			t.Error(err)
		}
		all, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		done <- all
	}()
	if err := o.write(bufs...); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if got := <-done; !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, or others; want %d", len(got), len(want))
	}
	if err := o.write([]byte("x")); err == nil {
		t.Error("written to a closed socket without an error")
	}
}

// However the bytes of TLS records are cut up, their contents are counted.
func TestRecords(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) // not rapid: it would count in TestHostMemory
	for range 300 {
		var stream []byte
		var plain int64
		lens := make([]int, 1+rnd.IntN(20))
		for i := range lens {
			lens[i] = rnd.IntN(500)
			stream = append(stream, 23, 3, 3)
			stream = binary.BigEndian.AppendUint16(stream, uint16(lens[i]+recordRest))
			stream = append(stream, make([]byte, lens[i]+recordRest)...)
			plain += int64(lens[i])
		}
		r := records{on: true}
		for rest := stream; len(rest) > 0; {
			k := 1 + rnd.IntN(len(rest))
			r.feed(rest[:k])
			rest = rest[k:]
		}
		if r.plain != plain || r.left != 0 || r.have != 0 {
			t.Fatalf("%+v; want %d bytes and nothing begun", r, plain)
		}
		r.feed(stream[:6])
		if r.left != lens[0]+recordRest-1 || r.plain != plain+int64(lens[0]) {
			t.Fatalf("%+v within a record of %d bytes", r, lens[0])
		}
	}
}
