package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestMan: every command that does something is in the manual page, and no line
// of text is taken for a request by the formatter.
func TestMan(t *testing.T) {
	var b strings.Builder
	root := newRoot(&env{out: io.Discard, err: io.Discard})
	if err := writeMan(&b, root); err != nil {
		t.Fatal(err)
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && !c.Hidden && c != root && !strings.Contains(c.CommandPath(), "completion") && c.Name() != "help" && !strings.Contains(b.String(), ".SS "+roff(c.CommandPath())) {
			t.Errorf("%s is not in the manual page", c.CommandPath())
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(root)
	known := map[string]bool{".TH": true, ".SH": true, ".SS": true, ".TP": true, ".PP": true, ".B": true}
	for i, l := range strings.Split(b.String(), "\n") {
		if strings.HasPrefix(l, "'") || strings.HasPrefix(l, ".") && !known[strings.Fields(l)[0]] {
			t.Errorf("line %d is a request: %q", i+1, l)
		}
	}
}
