package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func pinned(h Hook, content string) Hook {
	sum := sha256.Sum256([]byte(content))
	h.SHA256, h.Len = hex.EncodeToString(sum[:]), int64(len(content))
	return h
}

func TestHookCheck(t *testing.T) {
	file := func(change func(*Hook)) Hook {
		h := pinned(Hook{Kind: HookFile, File: "motd", Path: "/etc/motd", Mode: "0644"}, "hello")
		change(&h)
		return h
	}
	for _, h := range []Hook{
		file(func(*Hook) {}), file(func(h *Hook) { h.Mode, h.UID, h.GID, h.Fields = "0600", 1000, 100, "json" }), file(func(h *Hook) { h.Path = "/a b/é/...x" }),
		{Kind: HookRemove, Path: "/etc/motd"},
		pinned(Hook{Kind: HookFirstBoot, File: "join.sh", Fields: "shell"}, "#!/bin/sh\n"),
	} {
		if err := h.Check(); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
	for why, h := range map[string]Hook{
		"kind":               file(func(h *Hook) { h.Kind = "exec" }),
		"climbs":             file(func(h *Hook) { h.Path = "/etc/../../x" }),
		"relative":           file(func(h *Hook) { h.Path = "etc/x" }),
		"double":             file(func(h *Hook) { h.Path = "/etc//x" }),
		"folder":             file(func(h *Hook) { h.Path = "/etc/" }),
		"root":               file(func(h *Hook) { h.Path = "/" }),
		"line":               file(func(h *Hook) { h.Path = "/etc/a\nb" }),
		"not UTF-8":          file(func(h *Hook) { h.Path = "/etc/\xff" }),
		"long":               file(func(h *Hook) { h.Path = "/" + strings.Repeat("a", 256) }),
		"very long":          file(func(h *Hook) { h.Path = strings.Repeat("/a", 600) }),
		"setuid":             file(func(h *Hook) { h.Mode = "4755" }),
		"mode":               file(func(h *Hook) { h.Mode = "644" }),
		"owner":              file(func(h *Hook) { h.UID = -1 }),
		"fields":             file(func(h *Hook) { h.Fields = "yaml" }),
		"digest":             file(func(h *Hook) { h.SHA256 = "" }),
		"size":               file(func(h *Hook) { h.Len = MaxHook + 1 }),
		"negative":           file(func(h *Hook) { h.Len = -1 }),
		"file name":          file(func(h *Hook) { h.File = "../motd" }),
		"hidden":             file(func(h *Hook) { h.File = ".motd" }),
		"remove has content": {Kind: HookRemove, Path: "/x", Len: 1},
		"remove has mode":    {Kind: HookRemove, Path: "/x", Mode: "0644"},
		"remove has no path": {Kind: HookRemove},
		"script has path":    pinned(Hook{Kind: HookFirstBoot, File: "a", Path: "/x"}, "#!/bin/sh"),
		"script has mode":    pinned(Hook{Kind: HookFirstBoot, File: "a", Mode: "0755"}, "#!/bin/sh"),
	} {
		if err := h.Check(); err == nil {
			t.Errorf("%s: %+v was taken", why, h)
		}
	}
}

func TestHookContent(t *testing.T) {
	motd := pinned(Hook{Kind: HookFile, File: "motd", Path: "/etc/motd", Mode: "0644"}, "I am {{host}} in {{room}}, {{other}}")
	gone := Hook{Kind: HookRemove, Path: "/x"}
	script := pinned(Hook{Kind: HookFirstBoot, File: "s"}, "#!/bin/sh\n")
	m := &Manifest{Personalise: Personalise{Hooks: []Hook{motd, gone, script}}}
	bin := []byte("I am {{host}} in {{room}}, {{other}}#!/bin/sh\n")
	got, err := m.AttachHooks(bin)
	if err != nil || string(got[0])+string(got[2]) != string(bin) || len(got[1]) != 0 {
		t.Fatalf("AttachHooks = %q, %v", got, err)
	}
	for i := range bin { // every bit counts
		wrong := bytes.Clone(bin)
		wrong[i] ^= 1
		if _, err := m.AttachHooks(wrong); err == nil {
			t.Fatalf("a changed byte %d was taken", i)
		}
	}
	if _, err := m.AttachHooks(bin[1:]); err == nil {
		t.Error("a short hooks.bin was taken")
	}
	if _, err := m.AttachHooks(append(bytes.Clone(bin), 0)); err == nil {
		t.Error("a long hooks.bin was taken")
	}
	motd.Fields = "plain"
	if err := motd.CheckContent(bin[:motd.Len]); err == nil {
		t.Error("an unknown field was taken")
	}
	bad := pinned(script, "echo")
	if err := bad.CheckContent([]byte("echo")); err == nil {
		t.Error("a script without #! was taken")
	}
	if got := string(FillFields([]byte("a{{host}}b{{room}}{{x"), func(n string) string { return "<" + n + ">" })); got != "a<host>b<room>{{x" {
		t.Errorf("FillFields = %q", got)
	}
}

func TestHooksNeedLinux(t *testing.T) {
	p := Personalise{Hooks: []Hook{{Kind: HookRemove, Path: "/x"}}}
	if err := p.check([]Part{{OS: "windows"}}); err == nil || !strings.Contains(err.Error(), "Linux") {
		t.Errorf("Windows: %v", err)
	}
	if err := p.check([]Part{{OS: "windows"}, {OS: "linux"}}); err != nil {
		t.Error(err)
	}
	p.Hooks = make([]Hook, MaxHooks+1)
	if err := p.check([]Part{{OS: "linux"}}); err == nil {
		t.Error("too many hooks were taken")
	}
	if err := (&Personalise{Hooks: []Hook{}}).check([]Part{{OS: "linux"}}); err == nil {
		t.Error("an empty list, a second spelling of none, was taken")
	}
}

// FuzzHook: what Check takes names a file below the root, whatever stands in the manifest.
func FuzzHook(f *testing.F) {
	for _, s := range []string{`{"kind":"remove","path":"/etc/x"}`, `{"kind":"file","file":"a","path":"/a","mode":"0644"}`, `{"kind":"firstboot","file":"../a","path":"/..","len":-1}`} {
		f.Add([]byte(s), []byte("#!/bin/sh {{host}}"))
	}
	f.Fuzz(func(t *testing.T, text, content []byte) {
		var h Hook
		if json.Unmarshal(text, &h) != nil {
			return
		}
		if h.Check() == nil && h.Path != "" && (h.Path[0] != '/' || strings.Contains(h.Path+"/", "/../") || strings.ContainsAny(h.Path, "\n\x00")) {
			t.Fatalf("path %q was taken", h.Path)
		}
		h = pinned(h, string(content))
		h.Fields = "plain"
		if h.CheckContent(content) != nil {
			return
		}
		out := FillFields(content, func(n string) string { return fmt.Sprint(len(n)) })
		if len(out) > len(content) {
			t.Fatalf("%d bytes became %d", len(content), len(out))
		}
	})
}
