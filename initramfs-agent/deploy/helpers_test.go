package deploy

import (
	"crypto/ed25519"
	"flag"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labswarm/api"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/bootenv"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/identity"
	"labswarm/initramfs-agent/screen"
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

const (
	testUUID   = "11111111-2222-3333-4444-555555555501"
	testSerial = "PC-1"
)

// config is an agent for a server and a set of disks.
func config(t *testing.T, s *agenttest.Server, disks *disk.Set) Config {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return Config{
		Server: s.Addr, Pin: s.Key, Disks: disks, Listen: "127.0.0.1:0", Log: log, Screen: &screen.Screen{},
		Pins:    bootenv.Pins{ServerKeys: []ed25519.PublicKey{s.Key}, ImageKeys: s.Image.Keys},
		Source:  identity.Source{Sys: "/sys", StandIn: &api.Evidence{UUID: testUUID, Serial: testSerial}},
		LogText: func() string { return "last lines" }, OrderWait: 20 * time.Second,
	}
}
