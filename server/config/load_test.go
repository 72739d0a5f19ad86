package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "labswarm.toml")
}

func env(vars map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := vars[k]; return v, ok }
}

func TestPrecedence(t *testing.T) {
	file := writeFiles(t, map[string]string{
		"labswarm.toml": `
server = { name = "main", state_dir = "/srv/labswarm" }
net = { interfaces = ["eno1"], dhcp = "off" }
limits = { seed_rate = "50MiB", room_mbps = { B202 = 200, B203 = 100 } }
[boot]
answer_router_solicits = false
`,
		"conf.d/10-a.toml": "[net]\ndhcp = \"proxy\"\n[images]\nscrub_every = \"24h\"\n",
		"conf.d/20-b.toml": "[images]\nscrub_every = \"48h\"\nkeep_free = \"2GiB\"\n[notify]\nmail_to = [\"a@x\", \"b@x\"]\n",
		"conf.d/note.txt":  "not read",
	})
	l, err := Load(Source{File: file, Must: true, Env: env(map[string]string{"LABSWARM_NAME": "from-env", "LABSWARM_LAB_IF": "eno2", "LABSWARM_DNS": ""}),
		Flags: map[string]string{"lab-if": "eno3"}})
	if err != nil {
		t.Fatal(err)
	}
	c := l.Config
	if c.Name != "from-env" || c.Interface != "eno3" || c.DHCP != "proxy" || c.StateDir != "/srv/labswarm" || c.SeedRateBps != 50<<20 ||
		c.AnswerRS || c.ScrubEvery.Hours() != 48 || c.KeepFree != 2<<30 || c.ScrubBps != 100<<20 {
		t.Errorf("loaded %+v", c)
	}
	if diff := cmp.Diff(map[string]int{"B202": 200, "B203": 100}, c.RoomMbps); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a@x", "b@x"}, c.Notify.MailTo); diff != "" {
		t.Error(diff)
	}
	dir := filepath.Dir(file)
	for key, want := range map[string]string{
		"server.name": "LABSWARM_NAME", "net.interfaces": "--lab-if", "net.dhcp": dir + "/conf.d/10-a.toml:2",
		"images.scrub_every": dir + "/conf.d/20-b.toml:2", "boot.answer_router_solicits": file + ":6", "boot.dir": "",
	} {
		if l.From[key] != want {
			t.Errorf("%s is from %q; want %q", key, l.From[key], want)
		}
	}
}

// TestAllFaults: file and line of each, and all at once.
func TestAllFaults(t *testing.T) {
	file := writeFiles(t, map[string]string{
		"labswarm.toml": "[net]\ndhpc = \"proxy\"\ndhcp = 7\n\n[limits]\nseed_rate = \"fast\"\n[sever]\nname = \"x\"\n",
		"conf.d/a.toml": "net = { interfaces = [\"a\", \"b\"] }\n",
		"conf.d/b.toml": "[net\n",
		"conf.d/c.toml": "top = 1\nserver = \"x\"\n[boot]\n",
	})
	_, err := Complete(Source{File: file, Env: env(map[string]string{"LABSWARM_SCRUB_EVERY": "weekly"}), Flags: map[string]string{"router": "nowhere"}})
	var bad *Error
	if !errors.As(err, &bad) || bad.ExitCode() != 78 {
		t.Fatalf("Complete = %v; want *Error", err)
	}
	dir := filepath.Dir(file)
	for _, want := range []string{
		file + `:2: unknown key "net.dhpc"`, file + ":3: net.dhcp: this wants a string", file + ":6: limits.seed_rate", file + `:7: unknown key "sever"`,
		dir + "/conf.d/a.toml:1: net.interfaces", dir + "/conf.d/b.toml:2", dir + `/conf.d/c.toml:1: unknown key "top"`, dir + `/conf.d/c.toml:2: unknown key "server"`,
		"LABSWARM_SCRUB_EVERY", "--router", "no lab interface",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}

func TestMissingFile(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "x.toml")
	if _, err := Load(Source{File: gone}); err != nil {
		t.Errorf("no file at the default place: %v", err)
	}
	if _, err := Load(Source{File: gone, Must: true}); err == nil {
		t.Error("a missing file that a person named was accepted")
	}
}

// TestPrintIsRead: what is printed loads to the same, whatever is in it.
func TestPrintIsRead(t *testing.T) {
	flags := map[string]string{
		"name": "a \"quoted\" \\ name\twith \x01 and ü", "lab-if": "eno1", "dhcp-range": "10.0.0.5-10.0.0.9", "router": "10.0.0.1", "seed-rate": "1500000", "keep-free": "3GiB",
		"room-mbps": "b=2,a=1", "scrub-every": "0s", "scrub-rate": "0", "plain-peers": "true", "answer-rs": "false", "notify-mail-to": "x@y,z@y", "seed-mbps": "10000",
	}
	for _, given := range []map[string]string{nil, flags} {
		l, err := Load(Source{Flags: given})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load(Source{File: writeFiles(t, map[string]string{"labswarm.toml": l.Print()}), Must: true})
		if err != nil {
			t.Fatalf("%v\n%s", err, l.Print())
		}
		for _, s := range Settings() {
			if a, b := s.Get(&l.Config), s.Get(&again.Config); a != b {
				t.Errorf("%s: %q became %q", s.Key, a, b)
			}
		}
	}
}

// TestSettings: names are unique, and each value that Get writes is one that Set takes.
func TestSettings(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		if seen[s.Key] || seen["--"+s.Flag] || s.Help == "" || !strings.Contains(s.Key, ".") {
			t.Errorf("setting %q, --%s", s.Key, s.Flag)
		}
		seen[s.Key], seen["--"+s.Flag] = true, true
		c := Default()
		before := s.Get(&c)
		if err := s.Set(&c, before); err != nil || s.Get(&c) != before {
			t.Errorf("%s: Set(%q) = %v, then Get = %q", s.Key, before, err, s.Get(&c))
		}
	}
}

func TestAdopt(t *testing.T) {
	old, next := Default(), Default()
	next.Debug, next.DHCP, next.Notify.MailTo, next.ScrubEvery = true, "off", []string{"a@b"}, 0
	got, restart := Adopt(old, next)
	if !got.Debug || got.DHCP != "proxy" || len(got.Notify.MailTo) != 1 || got.ScrubEvery != 0 {
		t.Errorf("adopted %+v", got)
	}
	if len(restart) != 1 || restart[0].Key != "net.dhcp" || restart[0].New != "off" {
		t.Errorf("needs a restart: %+v", restart)
	}
}

func TestFillNotify(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"webhook without secret": func(c *Config) { c.Notify.Webhook = "https://x/y" },
		"webhook scheme":         func(c *Config) { c.Notify.Webhook, c.Notify.WebhookCredential = "ftp://x/y", "s" },
		"mail without host":      func(c *Config) { c.Notify.MailTo = []string{"a@b"} },
		"mail header":            func(c *Config) { c.Notify.MailHost, c.Notify.MailTo = "m", []string{"a@b\r\nBcc: c@d"} },
		"listen":                 func(c *Config) { c.MetricsListen = "7443" },
	} {
		c := Default()
		c.StateDir, c.Interface = "x", "lo"
		set(&c)
		if err := c.Fill(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
