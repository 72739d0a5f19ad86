package httpapi

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"

	"labswarm/api"
)

// object is a JSON object of the document; encoding/json sorts its keys, so the
// same routes make the same bytes.
type object = map[string]any

// OpenAPI returns the admin API as an OpenAPI 3.1 document. It is made of the
// route table and the Go types of the bodies, so it cannot differ from them.
func (a *Admin) OpenAPI() ([]byte, error) {
	s := &schemas{defs: object{}, seen: map[seen]string{}}
	paths := object{}
	for _, r := range a.routes() {
		at, ok := paths[r.Path].(object)
		if !ok {
			at = object{}
			paths[r.Path] = at
		}
		at[strings.ToLower(r.Method)] = s.operation(r)
	}
	problem := s.of(reflect.TypeFor[api.Problem]())
	doc := object{
		"openapi": "3.1.0",
		"info": object{"title": "labswarm admin API", "version": "1", "license": object{"name": "see LICENSE"},
			"description": "JSON over HTTP: on the unix socket labswarm.sock of the server's state folder, where the kernel says who calls, " +
				"and, with --admin-listen, over TLS 1.3 with a bearer token. Names are snake_case, times RFC 3339 in UTC, sizes bytes. " +
				"Fields are only ever added; unknown fields in a request are refused."},
		"paths": paths,
		"components": object{
			"schemas":         s.defs,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "bearerFormat": "lsw_..."}},
			"responses": object{"problem": object{"description": "refused or failed; code is stable, docs/API.md lists the codes",
				"content": object{"application/problem+json": object{"schema": problem}}}},
		},
		"security": []any{object{"token": []any{}}},
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	return append(raw, '\n'), err
}

var pathName = regexp.MustCompile(`\{([a-z_]+)\}`)

// operation describes one route.
func (s *schemas) operation(r Route) object {
	op := object{"summary": r.Summary, "operationId": operationID(r), "x-role": r.Role.String(), "tags": []any{area(r.Path)}}
	if r.SocketOnly {
		op["x-socket-only"] = true
	}
	params := []any{}
	for _, m := range pathName.FindAllStringSubmatch(r.Path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, q := range r.Query {
		params = append(params, object{"name": q, "in": "query", "schema": object{"type": "string"}})
	}
	if r.Method != http.MethodGet {
		params = append(params, object{"name": "Idempotency-Key", "in": "header", "required": r.Method == http.MethodPost && r.asks == nil,
			"description": "a new word for each wish: the same one again gets the kept answer for 24 h", "schema": object{"type": "string", "maxLength": 128}})
		params = append(params, object{"name": "If-Match", "in": "header", "description": "ETag of what was read: 412 when it was changed since", "schema": object{"type": "string"}})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.In != nil {
		s.in = true
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": s.of(reflect.TypeOf(r.In))}}}
		s.in = false
	}
	done := object{"description": "done"}
	if r.Out != nil {
		kind := "application/json"
		if strings.HasSuffix(r.Path, api.RouteAdminEv) {
			kind = "text/event-stream"
		}
		out := s.of(reflect.TypeOf(r.Out))
		if r.Or != nil {
			out = object{"anyOf": []any{out, s.of(reflect.TypeOf(r.Or))}}
		}
		done["content"] = object{kind: object{"schema": out}}
	}
	op["responses"] = object{"2XX": done, "default": object{"$ref": "#/components/responses/problem"}}
	return op
}

// operationID is a name for programs: "postJobsIdCancel".
func operationID(r Route) string {
	id := strings.ToLower(r.Method)
	for _, w := range strings.FieldsFunc(strings.TrimPrefix(r.Path, "/v1"), func(c rune) bool { return strings.ContainsRune("/{}.:_-", c) }) {
		id += strings.ToUpper(w[:1]) + w[1:]
	}
	return id
}

// area is the first word of a path.
func area(path string) string {
	word, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	return strings.TrimSuffix(word, ".json")
}

// schemas collects the types of the document under their names.
type schemas struct {
	defs object
	seen map[seen]string
	in   bool // of requests: nothing is required, an absent field is its zero value
}

type seen struct {
	t  reflect.Type
	in bool
}

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// of returns the JSON schema of a Go type as encoding/json writes it: nil
// slices, maps and pointers are null.
func (s *schemas) of(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == rawType:
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return object{"anyOf": []any{s.of(t.Elem()), object{"type": "null"}}}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Array, reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
			return object{"type": []any{"string", "null"}, "contentEncoding": "base64"}
		}
		return object{"type": []any{"array", "null"}, "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": []any{"object", "null"}, "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return object{"$ref": "#/components/schemas/" + s.named(t)}
	}
	return object{} // anything
}

// named describes a struct once and returns its name.
func (s *schemas) named(t reflect.Type) string {
	key := seen{t, s.in}
	if name := s.seen[key]; name != "" {
		return name
	}
	name := t.Name()
	if s.in {
		name += "Request"
	}
	for _, taken := s.defs[name]; taken || name == ""; _, taken = s.defs[name] {
		name = strings.ReplaceAll(t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:], ".", "_") + "_" + name // another package's type of that name
	}
	s.seen[key] = name
	def := object{"type": "object"} // of answers: fields may be added
	if s.in {
		def["additionalProperties"] = false
	}
	s.defs[name] = def
	props, required := object{}, []any{}
	for _, f := range reflect.VisibleFields(t) {
		tag, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" || !f.IsExported() || (f.Anonymous && tag == "") {
			continue // the fields of an embedded struct come by themselves
		}
		if tag == "" {
			tag = f.Name
		}
		props[tag] = s.of(f.Type)
		if !strings.Contains(opts, "omit") {
			required = append(required, tag)
		}
	}
	def["properties"] = props
	if len(required) > 0 && !s.in {
		def["required"] = required
	}
	return name
}

// openAPI serves the document, made at the first request.
func (a *Admin) openAPI(w http.ResponseWriter, _ *http.Request) error {
	raw, err := a.document()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // the client has gone: it asks again
	return nil
}
