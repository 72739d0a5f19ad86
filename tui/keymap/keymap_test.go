package keymap

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoCollision: one key means one thing on one screen.
func TestNoCollision(t *testing.T) {
	for _, screen := range Each(All) {
		seen := map[string]ID{}
		for _, b := range Default().On(screen) {
			for _, k := range b.Keys {
				if other, twice := seen[k]; twice {
					t.Errorf("screen %d: key %q means both %s and %s", screen, k, other, b.ID)
				}
				seen[k] = b.ID
			}
		}
	}
}

// TestEveryBindingIsExplained: footer and help have something to show.
func TestEveryBindingIsExplained(t *testing.T) {
	for _, b := range Default() {
		if b.ID == "" || len(b.Keys) == 0 || b.Show == "" || b.Long == "" || b.Screens == 0 {
			t.Errorf("binding %+v lacks a part", b)
		}
		for _, k := range b.Keys {
			if k == " " {
				t.Errorf("%s: bubbletea writes the space key as \"space\"", b.ID)
			}
		}
		if shown := strings.Fields(b.Show); shown[0] != b.Keys[0] {
			t.Errorf("%s shows %q but its first key is %q", b.ID, b.Show, b.Keys[0])
		}
	}
}

// TestWayOut: every screen can be left and explained.
func TestWayOut(t *testing.T) {
	for _, screen := range Each(All) {
		for key, want := range map[string]ID{"q": Quit, "ctrl+c": QuitNow, "?": ShowHelp} {
			if id, why, ok := Default().Find(screen, key, State{}); !ok || why != "" || id != want {
				t.Errorf("screen %d: %q = %s, %q, %v; want %s", screen, key, id, why, ok, want)
			}
		}
	}
}

func TestDisabledKeySaysWhy(t *testing.T) {
	id, why, ok := Default().Find(Rooms, "enter", State{})
	if id != Open || !ok || !strings.Contains(why, "no host") {
		t.Errorf("enter in an empty room = %s, %q, %v", id, why, ok)
	}
	if _, _, ok := Default().Find(Rooms, "Z", State{}); ok {
		t.Error("Z is not bound, but found")
	}
}

// TestFooter: help and quit stay, only keys of use now are shown.
func TestFooter(t *testing.T) {
	for _, tt := range []struct {
		st   State
		w    int
		want string
	}{
		{State{Hosts: 3, Rooms: 2}, 78, "enter host   tab next room   space mark   n new job   ? help   q quit"},
		{State{Hosts: 3, Rooms: 2}, 38, "enter host   ? help   q quit"},
		{State{Hosts: 3, Rooms: 1, Idle: true}, 78, "enter host   space mark   n new job   ? help   q quit"},
		{State{ReadOnly: true}, 78, "? help   q quit"},
		{State{Hosts: 3}, 4, "? help   q quit"}, // the canvas cuts it
	} {
		if got := Default().Footer(Rooms, tt.st, tt.w); got != tt.want {
			t.Errorf("Footer(%+v, %d) = %q, want %q", tt.st, tt.w, got, tt.want)
		}
	}
}

var update = flag.Bool("update", false, "write docs/KEYS.md anew")

// TestKeysDocument: docs/KEYS.md says what the keys do.
func TestKeysDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "KEYS.md")
	text := Default().Markdown()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != text {
		t.Errorf("docs/KEYS.md is not fresh (%v): make docs", err)
	}
}

// TestEveryScreenHasAName: and every key that acts has a twin.
func TestEveryScreenHasAName(t *testing.T) {
	named := Confirm // asks, and stands for nothing
	for _, n := range names() {
		named |= n.screen
	}
	if named != All|Confirm {
		t.Errorf("screens without a name: %b", (All|Confirm)&^named)
	}
	for _, b := range Default() {
		if b.Moves() == (b.Twin != "") {
			t.Errorf("%s on %v: moves about %v, twin %q", b.ID, b.Keys, b.Moves(), b.Twin)
		}
	}
}
