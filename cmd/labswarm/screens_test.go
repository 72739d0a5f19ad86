package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeShowsTheConsole: the picture in the README is one of docs/screens, and
// each of those fits the terminal it was taken from.
func TestReadmeShowsTheConsole(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), "<!-- docs/screens/report.txt -->\n```\n")
	shown, _, closed := strings.Cut(after, "```\n")
	kept, err := os.ReadFile(filepath.Join("..", "..", "docs", "screens", "report.txt"))
	if err != nil || !found || !closed || shown != string(kept) {
		t.Errorf("README.md does not show docs/screens/report.txt as it is (%v): copy it", err)
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "screens", "*.txt"))
	if err != nil || len(files) < 8 {
		t.Fatalf("kept screens: %v, %v", files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(string(raw), "\n") {
			if len([]rune(l)) > 80 {
				t.Errorf("%s: wider than 80 columns: %q", f, l)
			}
		}
	}
}
