package main

import (
	"context"
	"fmt"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

// stockClient is the stock anacrolix/torrent Client with its defaults, except
// for what would leave the room (DHT, port forwarding) and uTP, which only
// costs it time here.
func stockClient(ctx context.Context, a helperArgs) error {
	mi, err := metainfo.LoadFromFile(a.Torrent)
	if err != nil {
		return fmt.Errorf("read torrent: %w", err)
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.Seed, cfg.ListenPort = true, portPeer
	cfg.NoDHT, cfg.DisableUTP, cfg.NoDefaultPortForwarding, cfg.DisableIPv6, cfg.DisableWebtorrent = true, true, true, true, true
	cfg.ListenHost = func(string) string { return a.Addr.String() }
	cfg.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: a.Dir, PieceCompletion: storage.NewMapPieceCompletion()})
	cl, err := torrent.NewClient(cfg)
	if err != nil {
		return fmt.Errorf("start stock client: %w", err)
	}
	defer cl.Close()
	t, err := cl.AddTorrent(mi)
	if err != nil {
		return fmt.Errorf("add torrent: %w", err)
	}
	if a.Role == "stock-seed" {
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
	if err := say(lineDone, doneNote{Received: st.BytesReadData.Int64()}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
