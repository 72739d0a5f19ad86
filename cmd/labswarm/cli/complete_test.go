package cli

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/tui/tuitest"
)

// complete runs the hidden command behind a shell's tab key.
func complete(t *testing.T, state string, words ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	args := append([]string{"__complete", "--state-dir", state}, words...)
	if code := Main(t.Context(), args, nil, &out, &errs); code != ExitOK {
		t.Fatalf("%v: exit code %d: %s", words, code, errs.String())
	}
	return out.String()
}

// TestCompletion: with a server it proposes what there is, without one nothing,
// and never an error.
func TestCompletion(t *testing.T) {
	srv := tuitest.NewServerAt(t, tuitest.Facts(40), "labswarm.sock")
	state := filepath.Dir(srv.Socket)
	for words, want := range map[string]string{
		"host show a0":        "a01\tA101",
		"host rm ":            "a40\tA101",
		"room show ":          "A102\t",
		"job cancel ":         "118\tdeb12-lab A101 running",
		"job create --room ":  "B001",
		"job create --hosts ": "a33",
	} {
		if got := complete(t, state, strings.Split(words, " ")...); !strings.Contains(got, want) {
			t.Errorf("%q proposes\n%s, want %q", words, got, want)
		}
	}
	if got := complete(t, state, "host", "add", ""); strings.Contains(got, "a01") {
		t.Errorf("a new host is offered an old name:\n%s", got)
	}
	srv.Stop()
	if got := complete(t, state, "host", "show", ""); strings.Contains(got, "a01") || strings.Contains(strings.ToLower(got), "error") {
		t.Errorf("without a server:\n%s", got)
	}
}
