package cli

import (
	"io"
	"strings"
	"testing"

	"labswarm/tui/keymap"
)

// TestTwins: every screen and every action of the console exists as a command
// that can print JSON.
func TestTwins(t *testing.T) {
	root := newRoot(&env{out: io.Discard, err: io.Discard})
	for _, twin := range keymap.Default().Twins() {
		var words []string
		for _, w := range strings.Fields(twin) {
			if w == strings.ToLower(w) && !strings.HasPrefix(w, "-") {
				words = append(words, w)
			}
		}
		root.InitDefaultHelpCmd()
		cmd, rest, err := root.Find(words)
		if err != nil || len(rest) > 0 {
			t.Errorf("labswarm %s: no such command (%v, %v left)", twin, err, rest)
			continue
		}
		if cmd.Name() != "help" && !cmd.Runnable() {
			t.Errorf("labswarm %s does nothing", twin)
		}
		for _, w := range strings.Fields(twin) {
			if name, ok := strings.CutPrefix(w, "--"); ok && cmd.Flags().Lookup(name) == nil {
				t.Errorf("labswarm %s: no flag --%s", twin, name)
			}
		}
		if cmd.InheritedFlags().Lookup("json") == nil && cmd.Name() != "help" {
			t.Errorf("labswarm %s: no --json", twin)
		}
	}
}
