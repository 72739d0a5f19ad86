package main

import (
	"strings"
	"testing"
)

// TestBesideTakesLoopsOnly: an agent beside a running system must not even be
// able to name one of that system's disks.
func TestBesideTakesLoopsOnly(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--disk", "/dev/vda", "--allow-loop"}, "only a loop device"},
		{[]string{"--disk", "/dev/sda", "--allow-loop"}, "only a loop device"},
		{[]string{"--disk", "all", "--allow-loop"}, "only a loop device"},
		{[]string{"--disk", "/dev/loop-control", "--allow-loop"}, "only a loop device"},
		{[]string{"--disk", "/dev/../dev/loop1", "--allow-loop", "--pins", "/nonexistent"}, "only a loop device"},
		{[]string{"--allow-loop"}, "only a loop device"},
		{[]string{"--disk", "/dev/loop1"}, "--allow-loop"},
		{[]string{"--disk", "/dev/loop1", "--allow-loop", "--pins", "/nonexistent"}, "no such file"},
	} {
		err := beside(append([]string{"--server", "127.0.0.1:7440"}, tt.args...))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("beside(%v) = %v; want an error with %q", tt.args, err, tt.want)
		}
	}
	if err := beside([]string{"--disk", "/dev/loop1", "--allow-loop"}); err == nil {
		t.Error("no server was accepted")
	}
}
