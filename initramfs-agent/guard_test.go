package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// finding is one line that may only stand in one place.
type finding struct{ what, where string }

// allowed lists the only places of each dangerous thing: the function, as
// "file.go:Func", or nothing.
var allowed = map[string][]string{
	"opens a file for writing by os":      {"screen/screen.go:openConsole"},
	"writes a file by os":                 {"bootenv/bootenv.go:Quieten"},
	"opens a device for writing":          {"disk/disk.go:openChecked", "disk/share.go:reopen"},                             // the second: the same device behind a descriptor of the first
	"opens a device":                      {"disk/disk.go:setReadOnly", "disk/reader.go:openDirect", "volume/tree.go:open"}, // the last: inside a mounted image, nodev
	"writes to a descriptor":              {"disk/writable.go:pwrite", "volume/tree.go:write"},
	"changes a block device":              {"disk/disk.go:setReadOnly", "disk/share.go:Share", "disk/share.go:Unshare", "disk/share.go:blkpg", "disk/writable.go:Flush", "disk/writable.go:reread", "disk/writable.go:zeroOut"},
	"makes a raw system call":             {"disk/reader.go:ioctlSize", "disk/share.go:blkpg", "disk/smart.go:ask", "disk/writable.go:zeroOut", "volume/grow.go:ioctl"},
	"makes a disk.Writable":               {"disk/disk.go:openChecked"},
	"opens the disk of an order to write": {"deploy/write.go:deploy"},
	"opens the disk of an order to read":  {"deploy/capture.go:capture"},
	"makes a readback.Proof":              {"readback/readback.go:Run"},
	"says that a result is good":          {"report/report.go:Done"},
	"restarts or powers off":              {"finish/finish.go:Now", "supervise/supervise.go:Init"},
	"runs a program":                      {},
	"imports the tests' server and disks": {},
	"loads a module":                      {"coldplug/coldplug.go:finit"},
	"mounts":                              {"bootenv/bootenv.go:Mount", "bootenv/bootenv.go:MountEFIVars", "volume/volume.go:mount"},
}

// TestWritesStandInOnePlace walks every source file of the agent. The first
// line of defence of safety.md is a rule about code, so code is what is
// tested.
func TestWritesStandInOnePlace(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range sources(t) {
		for _, got := range inspect(f) {
			if !slices.Contains(allowed[got.what], got.where) {
				t.Errorf("%s %s; only %v may", got.where, got.what, allowed[got.what])
			}
			seen[got.what+"|"+got.where] = true
		}
	}
	// An entry nobody uses is a hole waiting for its user.
	for what, places := range allowed {
		for _, p := range places {
			if !seen[what+"|"+p] {
				t.Errorf("%s %s: allowed, but not so any more", p, what)
			}
		}
	}
}

// TestGuardSeesEverything is the negative control: each forbidden line in a
// file of its own is found.
func TestGuardSeesEverything(t *testing.T) {
	for _, tt := range []struct{ code, what string }{
		{`os.OpenFile("/dev/sda", os.O_RDWR, 0)`, "opens a file for writing by os"},
		{`os.OpenFile(p, flags, 0)`, "opens a file for writing by os"},
		{`os.Create("/dev/sda")`, "writes a file by os"},
		{`os.WriteFile("/dev/sda", nil, 0)`, "writes a file by os"},
		{`unix.Open("/dev/sda", unix.O_RDWR|unix.O_EXCL, 0)`, "opens a device"},
		{`syscall.Open("/dev/sda", 2, 0)`, "opens a device"},
		{`openDirect(p, unix.O_RDWR)`, "opens a device for writing"},
		{`unix.Pwrite(3, nil, 0)`, "writes to a descriptor"},
		{`unix.Write(3, nil)`, "writes to a descriptor"},
		{`unix.CopyFileRange(1, nil, 2, nil, 3, 0)`, "writes to a descriptor"},
		{`unix.IoctlSetInt(3, unix.BLKDISCARD, 0)`, "changes a block device"},
		{`unix.IoctlSetInt(3, unix.BLKROSET, 0)`, "changes a block device"},
		{`unix.Syscall(16, 1, 2, 3)`, "makes a raw system call"},
		{`_ = &disk.Writable{}`, "makes a disk.Writable"},
		{`s.cfg.Disks.Open(c)`, "opens the disk of an order to write"},
		{`open := set.Disks.Open; _ = open`, "opens the disk of an order to write"},
		{`s.cfg.Disks.OpenReading(r)`, "opens the disk of an order to read"},
		{`_ = readback.Proof{x: 1}`, "makes a readback.Proof"},
		{`r.OK = true`, "says that a result is good"},
		{`r.OK, x = true, 1`, "says that a result is good"},
		{`_ = api.Result{OK: true}`, "says that a result is good"},
		{`unix.Reboot(1)`, "restarts or powers off"},
		{`unix.Mount("a", "b", "c", 0, "")`, "mounts"},
		{`unix.Fsmount(3, 0, 0)`, "mounts"},
	} {
		f := parse(t, "x.go", "package x\nfunc f() { "+tt.code+" }")
		found := false
		for _, got := range inspect(f) {
			found = found || got.what == tt.what && got.where == "x.go:f"
		}
		if !found {
			t.Errorf("%s: not seen as %q", tt.code, tt.what)
		}
	}
	if got := inspect(parse(t, "x.go", "package x\nimport \"os/exec\"\nvar _ = exec.Command")); len(got) != 1 {
		t.Errorf("import of os/exec: %v", got)
	}
}

// TestCaptureHasNoWayToWrite: the code that captures does not even name what is needed to write: a cleared order, a
// commence, a writable disk, the writer. What it is given (disk.Captured, capture.Disk) has no method that writes,
// which the rules above see to.
func TestCaptureHasNoWayToWrite(t *testing.T) {
	n := 0
	for _, f := range sources(t) {
		if !capturesDisks(f.name) {
			continue
		}
		n++
		if bad := namesWriting(f); len(bad) > 0 {
			t.Errorf("%s names %v", f.name, bad)
		}
	}
	if n < 4 {
		t.Errorf("%d files capture; want capture/*.go, deploy/capture.go and disk/reading.go", n)
	}
	for _, code := range []string{`var c order.Cleared; _ = c`, `w.Verify()`, `s.clear(1)`, `s.c.Commence(2)`, `var w *disk.Writable; _ = w`, `writer.Begin()`, `unix.Pwrite(1, nil, 0)`, `w.WriteAt(nil, 0)`} {
		if len(namesWriting(parse(t, "capture/x.go", "package x\nfunc f() { "+code+" }"))) == 0 {
			t.Errorf("%s: not seen", code)
		}
	}
}

func capturesDisks(name string) bool {
	name = filepath.ToSlash(name)
	return strings.HasPrefix(name, "capture/") || name == "deploy/capture.go" || name == "disk/reading.go"
}

func namesWriting(s source) (bad []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && slices.Contains([]string{"Cleared", "Clear", "Verify", "clear", "Commence", "commit", "Writable", "writer", "Pwrite", "WriteAt", "Write", "O_RDWR", "O_WRONLY"}, id.Name) {
			bad = append(bad, id.Name)
		}
		return true
	})
	return bad
}

type source struct {
	name string
	file *ast.File
}

func parse(t *testing.T, name, text string) source {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	return source{name, f}
}

// sources are the files that are built into the agent.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") || strings.HasPrefix(p, "agenttest/") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, 0)
		if err != nil {
			return err
		}
		out = append(out, source{p, f})
		return nil
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("found %d source files, %v", len(out), err)
	}
	return out
}

func inspect(s source) []finding {
	var out []finding
	for _, i := range s.file.Imports {
		switch p, _ := strconv.Unquote(i.Path.Value); {
		case p == "os/exec":
			out = append(out, finding{"runs a program", s.name})
		case strings.HasSuffix(p, "/agenttest"):
			out = append(out, finding{"imports the tests' server and disks", s.name})
		}
	}
	for _, d := range s.file.Decls {
		name := "var"
		if f, ok := d.(*ast.FuncDecl); ok {
			name = f.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if what := judge(n); what != "" {
				out = append(out, finding{what, filepath.ToSlash(s.name) + ":" + name})
			}
			return true
		})
	}
	return out
}

func judge(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CallExpr:
		return call(n)
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.SelectorExpr); ok && x.Sel.Name == "Disks" {
			switch n.Sel.Name {
			case "Open":
				return "opens the disk of an order to write"
			case "OpenReading":
				return "opens the disk of an order to read"
			}
		}
		if x, ok := n.X.(*ast.Ident); ok && (x.Name == "unix" || x.Name == "syscall") && strings.HasPrefix(n.Sel.Name, "BLK") &&
			n.Sel.Name != "BLKGETSIZE64" && n.Sel.Name != "BLKSSZGET" {
			return "changes a block device"
		}
	case *ast.CompositeLit:
		return literal(n)
	case *ast.AssignStmt:
		for i, l := range n.Lhs {
			if sel, ok := l.(*ast.SelectorExpr); ok && sel.Sel.Name == "OK" && !(i < len(n.Rhs) && isFalse(n.Rhs[i])) {
				return "says that a result is good"
			}
		}
	}
	return ""
}

func isFalse(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "false"
}

func literal(n *ast.CompositeLit) string {
	name := ""
	switch t := n.Type.(type) {
	case *ast.Ident:
		name = t.Name
	case *ast.SelectorExpr:
		name = t.Sel.Name
	}
	switch {
	case name == "Writable":
		return "makes a disk.Writable"
	case name == "Proof" && len(n.Elts) > 0:
		return "makes a readback.Proof"
	case name == "Result":
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				if k, ok := kv.Key.(*ast.Ident); ok && k.Name == "OK" {
					return "says that a result is good"
				}
			}
		}
	}
	return ""
}

func call(n *ast.CallExpr) string {
	if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "openDirect" && len(n.Args) == 2 && mentions(n.Args[1], "O_RDWR", "O_WRONLY") {
		return "opens a device for writing"
	}
	sel, ok := n.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	switch f := sel.Sel.Name; x.Name {
	case "os":
		switch f {
		case "OpenFile", "NewFile":
			return "opens a file for writing by os"
		case "Create", "WriteFile", "Truncate", "Link", "Symlink", "Rename", "Remove", "RemoveAll", "StartProcess":
			return "writes a file by os"
		}
	case "unix", "syscall":
		return systemCall(f)
	}
	return ""
}

func systemCall(f string) string {
	switch f {
	case "Open", "Openat", "Openat2", "Creat":
		return "opens a device"
	case "Write", "Pwrite", "Writev", "Pwritev", "Pwritev2", "CopyFileRange", "Sendfile", "Splice", "Vmsplice", "Fallocate", "Ftruncate", "Truncate":
		return "writes to a descriptor"
	case "Syscall", "Syscall6", "RawSyscall", "RawSyscall6":
		return "makes a raw system call"
	case "Reboot", "KexecFileLoad":
		return "restarts or powers off"
	case "Mount", "MoveMount", "Fsmount":
		return "mounts"
	case "FinitModule", "InitModule":
		return "loads a module"
	case "Exec", "ForkExec", "StartProcess":
		return "runs a program"
	}
	return ""
}

func mentions(e ast.Expr, names ...string) bool {
	found := false
	ast.Inspect(e, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) {
			found = true
		}
		return true
	})
	return found
}
