//go:build integration

package netboot

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"labswarm/server/decide"
)

// stepServer DIR MODE MAC=ACTION...: the real server until SIGTERM. Events go
// to stdout, one per line, after READY.
func stepServer(args []string) error {
	files, err := loadFiles(args[0])
	if err != nil {
		return err
	}
	d := &table{by: map[string]Answer{}, events: func(kind, mac string) { fmt.Println("EVENT", kind, mac) }}
	for _, a := range args[2:] {
		mac, action, _ := strings.Cut(a, "=")
		ans := Answer{Host: "host"}
		switch action {
		case "agent":
			ans.Decision.Action = decide.Agent
		case "chain":
			ans.BootStyle = StyleChain
		}
		d.by[mac] = ans
	}
	s, err := New(Config{Interface: "br0", Mode: args[1], KeyID: "0011223344556677", AnswerRS: true, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
		PoolStart: netip.MustParseAddr("10.77.0.100"), PoolEnd: netip.MustParseAddr("10.77.0.120"), LeaseFile: args[0] + "/leases.json"}, files, d)
	if err != nil {
		return err
	}
	if err := s.Listen(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() { // the parent is gone when stdin ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	fmt.Println("READY")
	return s.Run(ctx)
}

// firstLine waits for the line of a child that says it is ready.
func firstLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	return strings.TrimSpace(line), err
}
