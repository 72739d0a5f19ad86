package library

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labswarm/images/fixture"
	"labswarm/images/manifest"
	"labswarm/internal/testreq"
)

// hooksFolder is a folder of hooks with some files beside hooks.json.
func hooksFolder(t *testing.T, list string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if list != "" {
		write(hooksList, list)
	}
	for n, text := range files {
		write(n, text)
	}
	return dir
}

const goodHooks = `[{"kind": "file", "file": "motd", "path": "/etc/motd", "fields": "plain"}, {"kind": "remove", "path": "/etc/x"}, {"kind": "firstboot", "file": "join.sh"}]`

var goodFiles = map[string]string{"motd": "I am {{host}}\n", "join.sh": "#!/bin/sh\nexit 0\n"}

// TestHooks: hooks are signed into a version, travel with it, and stay with the next one unless that says otherwise.
func TestHooks(t *testing.T) {
	k := fixture.New(t, testreq.Tool)
	disk := golden(t, k)
	l, dir := newLibrary(t)
	h, err := LoadHooks(hooksFolder(t, goodHooks, goodFiles))
	if err != nil || h.Len() != 3 {
		t.Fatalf("LoadHooks = %+v, %v", h, err)
	}
	v := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Hooks: h})
	got, err := v.Manifest().AttachHooks(v.HooksBin())
	if err != nil || len(got) != 3 || string(got[0]) != goodFiles["motd"] || string(got[2]) != goodFiles["join.sh"] {
		t.Fatalf("hooks of the version: %q, %v", got, err)
	}
	if p := v.Manifest().Personalise.Hooks; p[0].Mode != "0644" || p[1].Path != "/etc/x" || p[2].Kind != manifest.HookFirstBoot {
		t.Errorf("%+v", p)
	}

	path, fingerprint := exportTo(t, l, v)
	other, _ := elsewhere(t, 6)
	w, err := other.ImportExport(t.Context(), ImportOptions{Name: "lab", File: path}, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	defer close1(t, w)
	if !bytes.Equal(w.HooksBin(), v.HooksBin()) || !sameContent(v.man, w.man) {
		t.Errorf("the export lost hooks: %+v", w.man.Personalise)
	}
	in := receive(t, copies(t, l), v)
	close1(t, in)

	// Another file system on the same disk: the hooks stay. Without them it is another version again.
	write(t, disk, 100, []byte("changed"))
	next := mustImport(t, l, ImportOptions{Name: "lab", File: disk})
	if !bytes.Equal(next.HooksBin(), v.HooksBin()) || len(next.Manifest().Personalise.Hooks) != 3 {
		t.Error("the next version has lost the hooks")
	}
	none := mustImport(t, l, ImportOptions{Name: "lab", File: disk, Hooks: NoHooks()})
	if none.Version() == next.Version() || none.HooksBin() != nil || none.Manifest().Personalise.Hooks != nil {
		t.Errorf("hooks none: %+v", none.Manifest().Personalise)
	}

	// A changed byte of hooks.bin makes the version unusable.
	flip(t, filepath.Join(dir, "lab", v.Version(), hooksFile), 3)
	if bad, err := l.Get("lab", v.Version()); err == nil {
		close1(t, bad)
		t.Error("a damaged hooks.bin was taken")
	} else if !strings.Contains(err.Error(), "does not match the digest") {
		t.Error(err)
	}
}

func TestHooksRefused(t *testing.T) {
	big := strings.Repeat("x", manifest.MaxHook+1)
	for name, tt := range map[string]struct {
		list  string
		files map[string]string
		want  string
	}{
		"no list":       {"", nil, "hooks.json"},
		"no JSON":       {"x", nil, "want a list"},
		"empty":         {"[]", nil, "0 hooks"},
		"unknown field": {`[{"kind": "remove", "path": "/x", "recursive": true}]`, nil, "unknown field"},
		"two lists":     {`[{"kind": "remove", "path": "/x"}] []`, nil, "behind the list"},
		"kind":          {`[{"kind": "run", "path": "/x", "file": "motd"}]`, goodFiles, "only file, remove and firstboot"},
		"missing file":  {`[{"kind": "file", "file": "gone", "path": "/x"}]`, nil, "no such file"},
		"climbing file": {`[{"kind": "file", "file": "../../etc/passwd", "path": "/x"}]`, map[string]string{"passwd": "x"}, "use 1 to 64"},
		"too big":       {`[{"kind": "file", "file": "big", "path": "/x"}]`, map[string]string{"big": big}, "exceeds the limit"},
		"unknown {{}}":  {`[{"kind": "file", "file": "a", "path": "/x", "fields": "xml"}]`, map[string]string{"a": "{{password}}"}, "is unknown"},
		"no script":     {`[{"kind": "firstboot", "file": "a"}]`, map[string]string{"a": "MZ"}, "begins with #!/"},
	} {
		if h, err := LoadHooks(hooksFolder(t, tt.list, tt.files)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v; want %q", name, h, err, tt.want)
		}
	}
	dir := hooksFolder(t, `[{"kind": "file", "file": "a", "path": "/x"}]`, nil)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadHooks(dir); err == nil {
		t.Error("a link out of the folder was followed")
	}
	h, err := LoadHooks(hooksFolder(t, goodHooks, goodFiles))
	if err != nil {
		t.Fatal(err)
	}
	l, root := newLibrary(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, fixture.MBR(8, 4), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Import(t.Context(), ImportOptions{Name: "lab", File: disk, Hooks: h}); err == nil || !strings.Contains(err.Error(), "Linux") {
		t.Errorf("a disk without Linux: %v", err)
	}
	if left := leftovers(t, root); left != nil {
		t.Errorf("left %q", left)
	}
}

func FuzzParseHooks(f *testing.F) {
	f.Add([]byte(goodHooks))
	f.Add([]byte(`[{"kind":"file","file":"..","path":"/../x","mode":"07777","uid":-1}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseHooks(text)
		if err == nil && (len(list) == 0 || len(list) > manifest.MaxHooks) {
			t.Fatalf("%d hooks", len(list))
		}
	})
}
