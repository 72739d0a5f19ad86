package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSeedSpeed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"eno1": "10000\n", "down": "-1\n", "odd": "fast\n"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "speed"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]int{"eno1": 10_000, "down": 0, "odd": 0, "none": 0} {
		if got := linkSpeed(dir, name); got != want {
			t.Errorf("linkSpeed(%s) = %d; want %d", name, got, want)
		}
	}
	for _, tt := range []struct {
		mbps int
		rate int64
		want int
	}{{0, 0, 0}, {2500, 0, 2500}, {10_000, 50 << 20, 419}, {1000, 1 << 30, 1000}, {1000, 100, 1}} {
		s := server{cfg: Config{Interface: "no such interface", SeedMbps: tt.mbps, SeedRateBps: tt.rate}}
		if got := s.seedMbps(); got != tt.want {
			t.Errorf("a link of %d Mb/s capped at %d B/s counts as %d Mb/s; want %d", tt.mbps, tt.rate, got, tt.want)
		}
	}
}
