package journal

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestJournalKeepsTheEndAndNeverBlocks(t *testing.T) {
	out := make(chan string, 1)
	j := New(func() time.Duration { return 1500 * time.Millisecond }, out)
	log := j.Logger(slog.LevelInfo)
	log.Debug("not shown")
	log.Info("first")
	for range 20_000 {
		log.Info("filler line that takes some room", "n", 12345)
	}
	log.Error("last")
	text := j.Text()
	if len(text) != Keep || !strings.HasSuffix(text, "msg=last\n") || strings.Contains(text, "first") || strings.Contains(text, "not shown") {
		t.Errorf("kept %d bytes, end %q", len(text), text[len(text)-40:])
	}
	if l := <-out; !strings.Contains(l, "up=1.50") || !strings.Contains(l, "first") || strings.Contains(l, "time=") {
		t.Errorf("console line %q", l)
	}
}
