package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/server/access"
)

var update = flag.Bool("update", false, "write docs/openapi.json and the list of codes in docs/API.md")

const repo = "../.."

// golden compares a file of docs with what it is made of.
func golden(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(repo, "docs", name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want) {
		t.Errorf("docs/%s is not what the code says (%v): run `make openapi` and commit it", name, err)
	}
}

type document struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	ID         string `json:"operationId"`
	Role       string `json:"x-role"`
	SocketOnly bool   `json:"x-socket-only"`
	Summary    string
	Parameters []struct{ Name, In string }
	Body       *struct{ Content map[string]media } `json:"requestBody"`
	Responses  map[string]struct {
		Ref     string `json:"$ref"`
		Content map[string]media
	}
}

type media struct{ Schema schema }

// schema is as much of JSON schema as the document uses.
type schema struct {
	Ref        string `json:"$ref"`
	Type       any
	Format     string
	Items      *schema
	AnyOf      []schema
	Properties map[string]schema
	Required   []string
	Additional json.RawMessage `json:"additionalProperties"`
}

func read(t *testing.T, d *desk) document {
	t.Helper()
	raw := d.ask(root, "GET", api.RouteOpenAPI, "").Body.Bytes()
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPI: the document holds each route as it is, and nothing else.
func TestOpenAPI(t *testing.T) {
	d := newDesk(t)
	golden(t, "openapi.json", d.ask(root, "GET", api.RouteOpenAPI, "").Body.Bytes())
	doc := read(t, d)
	ids, count := map[string]bool{}, 0
	for _, rt := range d.admin.Table() {
		op, ok := doc.Paths[rt.Path][strings.ToLower(rt.Method)]
		if !ok || op.Role != rt.Role.String() || op.SocketOnly != rt.SocketOnly || op.Summary != rt.Summary || op.Summary == "" || ids[op.ID] {
			t.Errorf("%s %s in the document: %+v", rt.Method, rt.Path, op)
		}
		ids[op.ID] = true
		if (rt.In != nil) != (op.Body != nil) || (rt.Out != nil) != (op.Responses["2XX"].Content != nil) || op.Responses["default"].Ref == "" {
			t.Errorf("%s %s: bodies of the row and of the document differ: %+v", rt.Method, rt.Path, op)
		}
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(rt.Path, -1) {
			if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == m[1] && p.In == "path" }) {
				t.Errorf("%s %s: parameter %s is missing", rt.Method, rt.Path, m[1])
			}
		}
	}
	for _, at := range doc.Paths {
		count += len(at)
	}
	if count != len(d.admin.Table()) {
		t.Errorf("%d operations for %d routes", count, len(d.admin.Table()))
	}
	for name, s := range doc.Components.Schemas {
		for prop, p := range s.Properties {
			for _, ref := range []string{p.Ref} {
				if _, ok := doc.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]; ref != "" && !ok {
					t.Errorf("%s.%s points to %s, which is not there", name, prop, ref)
				}
			}
		}
	}
}

// fits checks a JSON value against a schema; where says what does not fit.
func (doc *document) fits(s schema, v any, where string) error {
	if s.Ref != "" {
		return doc.fits(doc.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], v, where)
	}
	if s.AnyOf != nil {
		var last error
		for _, one := range s.AnyOf {
			if last = doc.fits(one, v, where); last == nil {
				return nil
			}
		}
		return last
	}
	if s.Type != nil && !slices.Contains(kinds(s.Type), kindOf(v)) && !(kindOf(v) == "integer" && slices.Contains(kinds(s.Type), "number")) {
		return fmt.Errorf("%s is %s; want %v", where, kindOf(v), s.Type)
	}
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			if s.Items == nil { // anything
				return nil
			}
			if err := doc.fits(*s.Items, e, fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, need := range s.Required {
			if _, ok := v[need]; !ok {
				return fmt.Errorf("%s has no %s", where, need)
			}
		}
		for name, e := range v {
			p, ok := s.Properties[name]
			if !ok && s.Properties != nil && s.Additional == nil {
				return fmt.Errorf("%s.%s is not in the document", where, name)
			}
			if err := doc.fits(p, e, where+"."+name); ok && err != nil {
				return err
			}
		}
	}
	return nil
}

func kinds(t any) []string {
	if one, ok := t.(string); ok {
		return []string{one}
	}
	var out []string
	for _, k := range t.([]any) {
		out = append(out, k.(string))
	}
	return out
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// TestAnswersFitTheDocument asks every question that needs no image, and does
// a few things; the answers are as the document says.
func TestAnswersFitTheDocument(t *testing.T) {
	d := newDesk(t)
	doc := read(t, d)
	checked := 0
	check := func(method, route, path, body string) {
		t.Helper()
		rec := d.ask(root, method, path, body, "Idempotency-Key", path+body)
		if rec.Code >= 300 {
			t.Errorf("%s %s = %d %s", method, path, rec.Code, rec.Body)
			return
		}
		var v any
		if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return
		}
		checked++
		if err := doc.fits(doc.Paths[route][strings.ToLower(method)].Responses["2XX"].Content["application/json"].Schema, v, "answer"); err != nil {
			t.Errorf("%s %s: %v in %s", method, path, err, rec.Body)
		}
	}
	check("POST", api.RouteHosts, api.RouteHosts, `{"name":"a2","room":"r1","mac":"52:54:00:00:00:07"}`)
	check("GET", api.RouteHosts+"/{name}", api.RouteHosts+"/a2", "")
	check("POST", api.RouteTokens, api.RouteTokens, `{"name":"n","role":"operator","rooms":["r1"],"expires_in_s":60}`)
	for _, route := range []string{api.RouteServer, api.RouteRooms, api.RouteHosts, api.RouteJobs, api.RouteImages, api.RouteRelays, api.RouteTokens, api.RouteAudit, api.RouteOpenAPI} {
		check("GET", route, route, "")
	}
	// The checker has teeth.
	var v any
	if err := json.Unmarshal([]byte(`[{"name":"x","hosts":[1]}]`), &v); err != nil {
		t.Fatal(err)
	}
	if doc.fits(doc.Paths[api.RouteRooms]["get"].Responses["2XX"].Content["application/json"].Schema, v, "answer") == nil || checked != 12 {
		t.Errorf("a wrong answer fits, or not all were checked: %d", checked)
	}
}

// TestWrongBodies: every route that takes a body refuses wrong ones with a
// problem whose code is listed.
func TestWrongBodies(t *testing.T) {
	d := newDesk(t)
	listed := codes(t)
	n := 0
	for _, rt := range d.admin.Table() {
		if rt.In == nil {
			continue
		}
		path := strings.NewReplacer("{id}", "7", "{name}", "x").Replace(rt.Path)
		for _, body := range []string{"", "null x", "[1]", "{", `{"no_such_field":1}`, `"x"`, "{}{}", strings.Repeat(" ", 1<<20) + "{}", "\xff\xfe"} {
			n++
			rec := d.ask(root, rt.Method, path, body, "Idempotency-Key", fmt.Sprint(path, n))
			code := codeOf(rec)
			if rec.Code < 400 || rec.Code >= 500 || listed[code] == nil || rec.Header().Get("X-Request-Id") == "" {
				t.Errorf("%s %s %.20q = %d %s; want a refusal with a listed code", rt.Method, path, body, rec.Code, rec.Body)
			}
		}
	}
	if n == 0 {
		t.Error("no route takes a body")
	}
	rec := d.ask(access.Caller{Who: "x"}, "POST", api.RouteHosts, "{}", "Idempotency-Key", strings.Repeat("k", 500))
	if rec.Code != http.StatusForbidden {
		t.Errorf("a viewer with a long key = %d", rec.Code)
	}
}

// codeLine is an error code as api/errcode.go has it.
type codeLine struct{ name, text string }

// codes reads the list of codes.
func codes(t *testing.T) map[string]*codeLine {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(repo, "api", "errcode.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*codeLine{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Code") || len(v.Values) != 1 {
			return true
		}
		lit, ok := v.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		code, err := strconv.Unquote(lit.Value)
		if err != nil || out[code] != nil {
			t.Errorf("%s: code %s: %v, or there twice", v.Names[0].Name, lit.Value, err)
		}
		out[code] = &codeLine{name: v.Names[0].Name, text: strings.TrimSpace(v.Comment.Text())}
		return true
	})
	if len(out) < 30 {
		t.Fatalf("%d codes found", len(out))
	}
	return out
}

const codesBegin, codesEnd = "<!-- codes: made by `make openapi` from api/errcode.go -->\n", "<!-- end of codes -->\n"

// TestCodesAreListed: docs/API.md lists every code of api/errcode.go.
func TestCodesAreListed(t *testing.T) {
	all := codes(t)
	var b strings.Builder
	for _, code := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", code, strings.ReplaceAll(all[code].text, "|", "\\|"))
	}
	raw, err := os.ReadFile(filepath.Join(repo, "docs", "API.md"))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(raw), codesBegin)
	_, tail, ok2 := strings.Cut(rest, codesEnd)
	if !ok || !ok2 {
		t.Fatal("docs/API.md has no place for the codes")
	}
	golden(t, "API.md", []byte(head+codesBegin+"| code | meaning |\n|---|---|\n"+b.String()+codesEnd+tail))
}

// TestCodesUsedAreListed: no problem or fault in the code carries a code that
// is not in api/errcode.go: a literal in its place would be invisible.
func TestCodesUsedAreListed(t *testing.T) {
	all := codes(t)
	seen := 0
	for _, dir := range []string{"server", "initramfs-agent", "cmd"} {
		err := filepath.WalkDir(filepath.Join(repo, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, e := range codesIn(n) {
					seen++
					if lit, ok := e.(*ast.BasicLit); ok {
						if code, err := strconv.Unquote(lit.Value); err != nil || all[code] == nil {
							t.Errorf("%s: code %s is not in api/errcode.go", fset.Position(lit.Pos()), lit.Value)
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
	}
	if seen < 50 {
		t.Errorf("%d places found that carry a code", seen)
	}
	bad, err := parser.ParseExpr(`fail(400, "made_up", "x")`)
	if err != nil || len(codesIn(bad)) != 1 {
		t.Errorf("the search finds nothing in a call: %v", err)
	}
}

// codesIn returns the expressions that stand for a code in a Problem, a Fault
// or a call of the functions that make problems.
func codesIn(n ast.Node) (out []ast.Expr) {
	switch n := n.(type) {
	case *ast.CompositeLit:
		name := ""
		switch tn := n.Type.(type) {
		case *ast.SelectorExpr:
			name = tn.Sel.Name
		case *ast.Ident:
			name = tn.Name
		}
		if name != "Problem" && name != "Fault" {
			return nil
		}
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				if k, ok := kv.Key.(*ast.Ident); ok && k.Name == "Code" {
					out = append(out, kv.Value)
				}
			}
		}
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.Ident)
		at, known := map[string]int{"fail": 1, "refuse": 1, "conflict": 0, "badRequest": 0}[f0(f, ok)]
		if known && len(n.Args) > at {
			out = append(out, n.Args[at])
		}
	}
	return out
}

func f0(f *ast.Ident, ok bool) string {
	if !ok {
		return ""
	}
	return f.Name
}
