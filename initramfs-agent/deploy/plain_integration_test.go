//go:build integration

package deploy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/agenttest"
)

// TestPlainClientsNeedTheServersWord asks a host that is done for a block as a
// client without any extension does (BEP 3). It gets one only when the server
// said in the order that it may.
func TestPlainClientsNeedTheServersWord(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint(plain), func(t *testing.T) {
			im := agenttest.New(t, agenttest.Options{Cells: 32})
			s := agenttest.NewServer(t, im)
			l := agenttest.NewLoop(t, noise(int64(len(im.Raw)+4095)/4096*4096))
			port := 0
			s.Enrol = func(r api.EnrolRequest) api.EnrolReply {
				port = r.PeerPort
				return api.EnrolReply{Status: api.EnrolOK, Host: "a01", Room: "A", Job: 7, Image: "test/1"}
			}
			s.Order = func(o *order.Order) { o.Swarm.PlainPeers = plain }
			var asked atomic.Bool
			s.Progress = func(p api.Progress) api.ProgressReply {
				if p.State == api.StateDone && asked.CompareAndSwap(false, true) {
					got, err := block(im, port)
					switch {
					case plain && err != nil:
						t.Errorf("a plain client got no block: %v", err)
					case plain && !bytes.Equal(got, im.Piece(1)[:plainBlock]):
						t.Error("a plain client got wrong bytes")
					case !plain && err == nil:
						t.Errorf("a plain client got %d bytes without the server's word", len(got))
					}
				}
				return s.Plan(p)
			}
			out, err := Run(t.Context(), config(t, s, loops(l.Name)))
			proven(t, s, l, out, err)
			if !asked.Load() {
				t.Error("the host was never asked")
			}
		})
	}
}

const plainBlock = 16 << 10

// block fetches the first 16 KiB of piece 1 with messages of BEP 3 only.
func block(im *agenttest.Image, port int) (got []byte, err error) {
	nc, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, nc.Close()) }()
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00"), im.Bundle.Torrent.InfoHash[:]...)
	hello = append(hello, "-XX0001-plain.client"...)
	if _, err := nc.Write(append(hello, 0, 0, 0, 1, 2)); err != nil { // interested
		return nil, err
	}
	if _, err := io.ReadFull(nc, make([]byte, 68)); err != nil {
		return nil, fmt.Errorf("read handshake: %w", err)
	}
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(nc, head); err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		n := binary.BigEndian.Uint32(head)
		if n > plainBlock+9 {
			return nil, fmt.Errorf("message of %d bytes", n)
		}
		msg := make([]byte, n)
		if _, err := io.ReadFull(nc, msg); err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		switch {
		case n == 1 && msg[0] == 1: // unchoke
			if _, err := nc.Write([]byte{0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, plainBlock >> 8, 0}); err != nil {
				return nil, err
			}
		case n > 9 && msg[0] == 7: // piece
			return msg[9:], nil
		}
	}
}
