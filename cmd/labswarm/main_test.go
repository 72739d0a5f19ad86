package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"labswarm/images/fixture"
	"labswarm/internal/testreq"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"labswarm": main})
}

// TestStories runs the real program through testdata/script/*.txtar.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               func(e *testscript.Env) error { return setup(e) },
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "disk": disk(t)},
	})
}

func setup(e *testscript.Env) error {
	e.Setenv("LABSWARM_STATE_DIR", e.WorkDir+"/state")
	e.Setenv("TERM", "xterm")
	return nil
}

// exits CODE PROGRAM ARGS... runs a program and wants exactly that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		got = ee.ExitCode()
	case err != nil:
		ts.Fatalf("run %q: %v", args[1:], err)
	}
	if got != want {
		ts.Fatalf("%q: exit code %d; want %d", args[1:], got, want)
	}
}

const diskScript = `label: gpt
label-id: 5A3C6E1A-9F0B-4A55-8E5B-000000000001
unit: sectors
start=2048, size=32768, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root"
start=34816, size=8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="data"
`

// disk FILE makes a small bootable-looking disk: GPT, ext4, a full partition.
func disk(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: disk FILE")
		}
		for tool, pkg := range map[string]string{"sfdisk": "fdisk", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils", "zstd": "zstd"} {
			testreq.Tool(t, tool, pkg)
		}
		k := fixture.New(t, testreq.Tool)
		root := k.Ext(16<<20, k.Tree(7, 20, 100<<10), "-t", "ext4")
		path := k.Disk(24<<20, diskScript, map[int64]string{1 << 20: root, 17 << 20: k.Garbage(4 << 20)})
		ts.Check(os.Rename(path, ts.MkAbs(args[0])))
	}
}
