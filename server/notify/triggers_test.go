package notify

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"labswarm/api"
)

// TestEveryTriggerIsEmitted reads the server's code: a trigger that no event's
// Code can be would never tell anybody.
func TestEveryTriggerIsEmitted(t *testing.T) {
	ends := map[string][]string{"schedule_": {api.RunStarted, api.RunSkipped, api.RunMissed}}
	for _, st := range []api.State{api.StateHeld, api.StateFailed} {
		ends["slot_"] = append(ends["slot_"], strings.ToLower(string(st)))
	}
	emitted := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if k, ok := kv.Key.(*ast.Ident); !ok || k.Name != "Code" {
				return true
			}
			switch v := kv.Value.(type) {
			case *ast.BasicLit:
				code, err := strconv.Unquote(v.Value)
				emitted[code] = err == nil
			case *ast.BinaryExpr: // "slot_" + something
				if lit, ok := v.X.(*ast.BasicLit); ok {
					prefix, _ := strconv.Unquote(lit.Value) // a literal of a file that parsed
					for _, end := range ends[prefix] {
						emitted[prefix+end] = true
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(emitted) < 20 || emitted["window_missed"] {
		t.Fatalf("found %d codes of events: %v", len(emitted), emitted)
	}
	for code := range Triggers {
		if !emitted[code] {
			t.Errorf("no event has the code %q", code)
		}
	}
}
