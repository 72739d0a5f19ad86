//go:build integration

package finalise

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/personalise"
)

func hook(kind, file, path, mode, fields, content string) personalise.Hook {
	return personalise.Hook{Hook: manifest.Hook{Kind: kind, File: file, Path: path, Mode: mode, UID: 7, GID: 8, Fields: fields}, Content: []byte(content)}
}

// TestHooksAndNetwork: hooks and a fixed address on a real filesystem, twice, as after a power cut.
func TestHooksAndNetwork(t *testing.T) {
	s := agenttest.NewSystem(t, "ext4", `mkdir -p usr/lib/systemd etc/systemd/system/multi-user.target.wants opt; : > usr/lib/systemd/systemd
ln -s /usr/lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/systemd-networkd.service
ln -s /outside opt/out; echo secret > etc/token; echo old > etc/motd; chmod 600 etc/motd`)
	before := agenttest.List(t, "ext4", s.File, s.Size)
	l, w := seat(t, s, s.Size+3<<20)
	m, parts := describe(s, 0)
	o := options(t, order.PersonaliseRequire)
	o.Host.MAC, o.Host.Network = "52:54:00:12:34:56", &api.Network{Address: "10.0.7.21/24", Gateway: "10.0.7.1", DNS: []string{"10.0.7.1"}}
	o.Hooks = []personalise.Hook{
		hook("file", "motd", "/etc/motd", "0644", "plain", "{{host}} {{address}}\n"),
		hook("file", "new", "/srv/lab/conf/new", "0640", "", "as it is {{host}}\n"),
		hook("remove", "", "/etc/token", "", "", ""), hook("remove", "", "/opt/out", "", "", ""),
		hook("firstboot", "join.sh", "", "", "shell", "#!/bin/sh\njoin {{host}}\n"),
	}
	for range 2 {
		if out, err := Run(t.Context(), w, m, parts, o); err != nil || len(out.Warnings) != 0 {
			t.Fatalf("Run = %+v, %v", out, err)
		}
	}
	after := agenttest.List(t, "ext4", l.File, s.Size)
	for name, has := range map[string]string{
		"etc/motd": "f 644 7:8 18 ", "srv/lab/conf/new": "f 640 7:8 18 ", "srv/lab": "d 755 0:0", "etc/systemd/network/05-labswarm.network": "f 644 0:0 ",
		"etc/labswarm/firstboot.d/05-join.sh": "f 700 0:0 22 ", "etc/labswarm/firstboot.pending": "f 644 0:0 0 ", "etc/resolv.conf": "f 644 0:0 ",
		"etc/systemd/system/multi-user.target.wants/labswarm-firstboot.service": "l 777 0:0 46 /etc/systemd/system/labswarm-firstboot.service",
	} {
		if !strings.HasPrefix(after[name], has) {
			t.Errorf("%s is %q; want %q", name, after[name], has)
		}
	}
	for _, name := range []string{"etc/token", "opt/out", "etc/.labswarm-new"} {
		if is, ok := after[name]; ok {
			t.Errorf("%s is still there: %s", name, is)
		}
	}
	if before["usr/lib/library"] != after["usr/lib/library"] || before["home/user/notes"] != after["home/user/notes"] {
		t.Error("other files were changed")
	}
}

// TestHookFails: a hook that cannot be done fails the host, or is told, as the job says.
func TestHookFails(t *testing.T) {
	s := agenttest.NewSystem(t, "ext4", "")
	before := agenttest.List(t, "ext4", s.File, s.Size)
	m, parts := describe(s, 0)
	for policy, want := range map[string]string{order.PersonaliseRequire: "", order.PersonaliseTry: "no systemd", order.PersonaliseOff: "1 hooks are left out"} {
		l, w := seat(t, s, s.Size+3<<20)
		o := options(t, policy)
		o.Hooks = []personalise.Hook{hook("firstboot", "x", "", "", "", "#!/bin/sh\n")}
		out, err := Run(t.Context(), w, m, parts, o)
		var f *api.Fault
		if errors.As(err, &f) != (want == "") || f != nil && (f.Code != api.CodePersonalise || !strings.Contains(f.Error(), "no systemd")) {
			t.Errorf("%s: %v", policy, err)
		}
		if got := strings.Join(out.Warnings, " "); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: warnings %q; want %q", policy, got, want)
		}
		if !maps.Equal(before, agenttest.List(t, "ext4", l.File, s.Size)) {
			t.Errorf("%s: files were changed", policy)
		}
	}
}
