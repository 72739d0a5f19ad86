package classroom

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
)

// Sleep plays the network card of a terminal that is switched off: it listens on
// the terminal's port of the LAN until a magic packet for its address arrives, in
// whatever frame, and lets go of the port, so that the terminal can be switched
// on. Error: ctx ended, or there is no such port.
func (t *Terminal) Sleep(ctx context.Context) error {
	mac, err := net.ParseMAC(t.vm.MAC)
	if err != nil {
		return fmt.Errorf("terminal %s sleeps: %w", t.Name, err)
	}
	magic := slices.Concat(bytes.Repeat([]byte{0xff}, 6), bytes.Repeat(mac, 16))
	tap, err := t.s.net.OpenTap(slices.Index(t.s.terminals, t))
	if err != nil {
		return fmt.Errorf("terminal %s sleeps: %w", t.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = tap.Close() }) // wakes the Read
	defer func() {
		if stop() {
			_ = tap.Close() // nothing was written
		}
	}()
	frame := make([]byte, 64<<10)
	for {
		n, err := tap.Read(frame)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("terminal %s sleeps: %w", t.Name, err)
		case bytes.Contains(frame[:n], magic):
			t.note("magic packet")
			return nil
		}
	}
}
