// Command stock is the stock anacrolix/torrent Client as a contender of
// swarmbench: stock TORRENT DIR ADDRESS seed|host. It is a program of its own so
// that neither side's packages count in the other's memory.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

const port = 7441

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stock:", err)
		os.Exit(1)
	}
}

// run is the stock Client with its defaults, except for what would leave the
// room (DHT, port forwarding) and uTP, which only costs it time here.
func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%d arguments: want TORRENT DIR ADDRESS seed|host", len(args))
	}
	mi, err := metainfo.LoadFromFile(args[0])
	if err != nil {
		return fmt.Errorf("read torrent: %w", err)
	}
	fmt.Println("GATE")
	var word string
	if _, err := fmt.Scanln(&word); err != nil {
		return fmt.Errorf("wait for the start: %w", err)
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.Seed, cfg.ListenPort = true, port
	cfg.NoDHT, cfg.DisableUTP, cfg.NoDefaultPortForwarding, cfg.DisableIPv6, cfg.DisableWebtorrent = true, true, true, true, true
	cfg.ListenHost = func(string) string { return args[2] }
	cfg.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: args[1], PieceCompletion: storage.NewMapPieceCompletion()})
	cl, err := torrent.NewClient(cfg)
	if err != nil {
		return fmt.Errorf("start stock client: %w", err)
	}
	defer cl.Close()
	t, err := cl.AddTorrent(mi)
	if err != nil {
		return fmt.Errorf("add torrent: %w", err)
	}
	if args[3] == "seed" {
		if err := t.VerifyDataContext(ctx); err != nil {
			return fmt.Errorf("check the seed's file: %w", err)
		}
	} else {
		t.DownloadAll()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for t.BytesMissing() > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	st := t.Stats()
	note, err := json.Marshal(map[string]int64{"received": st.BytesReadData.Int64()})
	if err != nil {
		return err
	}
	fmt.Printf("DONE %s\n", note)
	<-ctx.Done()
	return nil
}
