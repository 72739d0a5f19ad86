package personalise

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labswarm/api"
	"labswarm/images/manifest"
)

func file(path, mode, content string) Hook {
	return Hook{Hook: manifest.Hook{Kind: manifest.HookFile, File: "f", Path: path, Mode: mode}, Content: []byte(content)}
}

func remove(path string) Hook {
	return Hook{Hook: manifest.Hook{Kind: manifest.HookRemove, Path: path}}
}

func script(name, content string) Hook {
	return Hook{Hook: manifest.Hook{Kind: manifest.HookFirstBoot, File: name, Fields: "shell"}, Content: []byte(content)}
}

// made is a plan's changes on a table, with links and folders told apart.
func made(p *Plan) map[string]string {
	out := map[string]string{}
	for _, c := range p.Changes {
		switch {
		case c.Remove:
			out[c.Path] = "gone"
		case c.Folder:
			out[c.Path] = "folder"
		case c.Link != "":
			out[c.Path] = "->" + c.Link
		default:
			out[c.Path] = string(c.Content)
		}
	}
	return out
}

func TestHooks(t *testing.T) {
	base := table{"etc/hostname": "golden", "etc/old": "x", "etc/link": "->/srv/real", "srv/real": "y", "usr/lib/systemd/systemd": "", "etc/systemd/system/x": "",
		"etc/fstab": "UUID=1 / ext4 defaults 0 1\n# /dev/x /etc ext4\nUUID=2 /var ext4 defaults 0 2\n"}
	for _, tt := range []struct {
		name  string
		hooks []Hook
		want  map[string]string
		err   string
	}{
		{name: "none", want: map[string]string{}},
		{name: "file in a new folder", hooks: []Hook{file("/opt/lab/a", "0640", "x")}, want: map[string]string{"opt": "folder", "opt/lab": "folder", "opt/lab/a": "x"}},
		{name: "file over a link", hooks: []Hook{file("/etc/link", "0644", "x")}, want: map[string]string{"srv/real": "x"}},
		{name: "remove a link, not what it leads to", hooks: []Hook{remove("/etc/link"), remove("/etc/none")}, want: map[string]string{"etc/link": "gone"}},
		{name: "the last word counts", hooks: []Hook{file("/etc/old", "0644", "1"), remove("/etc/old"), file("/etc/old", "0644", "2")}, want: map[string]string{"etc/old": "2"}},
		{name: "folder", hooks: []Hook{remove("/etc/systemd")}, err: "is a folder"},
		{name: "file on a folder", hooks: []Hook{file("/etc", "0644", "")}, err: "no file"},
		{name: "below a file", hooks: []Hook{file("/etc/old/x", "0644", "")}, err: "no folder"},
		{name: "another filesystem", hooks: []Hook{file("/var/lib/x", "0644", "")}, err: "lies on /var"},
		{name: "remove on another filesystem", hooks: []Hook{remove("/var/lib/x")}, err: "lies on /var"},
		{name: "scripts", hooks: []Hook{script("a.sh", "#!/bin/sh\necho {{host}}\n"), remove("/etc/old"), script("b.sh", "#!/bin/sh\n")}, want: map[string]string{
			"etc/old": "gone", "etc/labswarm": "folder", "etc/labswarm/firstboot.d": "folder", "etc/systemd/system/multi-user.target.wants": "folder",
			"etc/labswarm/firstboot.d/01-a.sh": "#!/bin/sh\necho 'pc07'\n", "etc/labswarm/firstboot.d/03-b.sh": "#!/bin/sh\n", "etc/labswarm/firstboot.pending": "",
			bootWants + "/labswarm-firstboot.service": "->/etc/systemd/system/labswarm-firstboot.service",
			bootUnit: "# Made by labswarm: the hooks of this PC's image.\n[Unit]\nDescription=First start of this copy (labswarm)\nConditionPathExists=/etc/labswarm/firstboot.pending\n" +
				"Wants=network-online.target\nAfter=network-online.target local-fs.target\n\n[Service]\nType=oneshot\nExecStart=/etc/labswarm/firstboot.d/01-a.sh\n" +
				"ExecStart=/etc/labswarm/firstboot.d/03-b.sh\nExecStartPost=/bin/rm -f /etc/labswarm/firstboot.pending\n\n[Install]\nWantedBy=multi-user.target\n"}},
	} {
		p := &Plan{}
		err := Hooks(p, base, pc, tt.hooks)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if d := cmp.Diff(tt.want, made(p)); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
	}
	if err := Hooks(&Plan{}, table{"etc/hostname": ""}, pc, []Hook{script("a", "#!/x")}); err == nil || !strings.Contains(err.Error(), "no systemd") {
		t.Errorf("without systemd: %v", err)
	}
	// The hook's word counts more than the built-in rules'.
	p, err := Linux(base, pc, fakeKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := Hooks(p, base, pc, []Hook{file("/etc/hostname", "0644", "mine\n")}); err != nil || made(p)["etc/hostname"] != "mine\n" {
		t.Errorf("hostname %q, %v", made(p)["etc/hostname"], err)
	}
}

func TestFields(t *testing.T) {
	h := Host{Name: "pc07", Room: `a'b<"&`, Image: "x/1", Job: 3, Network: &api.Network{Address: "10.0.0.7/24"}}
	for format, want := range map[string]string{
		"":      "{{host}} {{room}} {{image}} {{job}} {{address}}",
		"plain": `pc07 a'b<"& x/1 3 10.0.0.7/24`,
		"shell": `'pc07' 'a'\''b<"&' 'x/1' '3' '10.0.0.7/24'`,
		"json":  `pc07 a'b\u003c\"\u0026 x/1 3 10.0.0.7/24`,
		"xml":   `pc07 a&#39;b&lt;&#34;&amp; x/1 3 10.0.0.7/24`,
	} {
		k := file("/x", "0644", "{{host}} {{room}} {{image}} {{job}} {{address}}")
		k.Fields = format
		if got := string(fill(k, h)); got != want {
			t.Errorf("%q: %s; want %s", format, got, want)
		}
	}
}

func TestNetwork(t *testing.T) {
	const wants = "etc/systemd/system/multi-user.target.wants/"
	h := Host{Name: "pc07", MAC: "52:54:00:12:34:56", Network: &api.Network{Address: "10.0.7.21/24", Gateway: "10.0.7.1", DNS: []string{"10.0.7.1", "2001:db8::1"}}}
	const debian = "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet dhcp\n\tmtu 1400\n\thostname x\n# end\niface ens3 inet6 auto\n"
	resolv := "# Made by labswarm from the host record.\nnameserver 10.0.7.1\nnameserver 2001:db8::1\n"
	for _, tt := range []struct {
		name string
		in   table
		want map[string]string
		err  string
	}{
		{name: "networkd", in: table{wants + "systemd-networkd.service": "->/x", "etc/systemd/network/80.network": "", "etc/resolv.conf": "->../run/x"}, want: map[string]string{
			networkdFile: "# Made by labswarm from the host record.\n[Match]\nMACAddress=52:54:00:12:34:56\n\n[Network]\nDHCP=no\nAddress=10.0.7.21/24\nGateway=10.0.7.1\nDNS=10.0.7.1\nDNS=2001:db8::1\n"}},
		{name: "NetworkManager", in: table{wants + "NetworkManager.service": "->/x", "etc/NetworkManager/x": "", "usr/sbin/ifup": "", "etc/network/interfaces": "iface lo inet loopback\n"}, want: map[string]string{
			"etc/NetworkManager/system-connections": "folder",
			nmFile: "# Made by labswarm from the host record.\n[connection]\nid=labswarm\nuuid=c07b71d5-5d96-8b5f-8dd0-d59f1d5bd4a4\ntype=ethernet\nautoconnect=true\nautoconnect-priority=999\n\n" +
				"[ethernet]\nmac-address=52:54:00:12:34:56\n\n[ipv4]\nmethod=manual\naddress1=10.0.7.21/24,10.0.7.1\ndns=10.0.7.1;\n\n[ipv6]\nmethod=auto\ndns=2001:db8::1;\n"}},
		{name: "ifupdown", in: table{"usr/sbin/ifup": "", ifupdownFile: debian, wants + "NetworkManager.service": "->/x"}, want: map[string]string{
			ifupdownFile: "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet static\n\taddress 10.0.7.21/24\n\tgateway 10.0.7.1\n" +
				"\tdns-nameservers 10.0.7.1 2001:db8::1\n\tmtu 1400\n# end\niface ens3 inet6 auto\n", resolvFile: resolv}},
		{name: "ifupdown.d, resolvconf", in: table{"sbin/ifup": "", "sbin/resolvconf": "", ifupdownFile: "source x\n", ifupdownDir + "/eth": "iface eth0 inet dhcp\n"}, want: map[string]string{
			ifupdownDir + "/eth": "iface eth0 inet static\n\taddress 10.0.7.21/24\n\tgateway 10.0.7.1\n\tdns-nameservers 10.0.7.1 2001:db8::1\n"}},
		{name: "two interfaces", in: table{"sbin/ifup": "", ifupdownFile: "iface a inet dhcp\niface b inet dhcp\n"}, err: "describes 2 interfaces"},
		{name: "two files", in: table{"sbin/ifup": "", ifupdownFile: "iface a inet dhcp\n", ifupdownDir + "/b": "iface b inet dhcp\n"}, err: "2 files"},
		{name: "continued", in: table{"sbin/ifup": "", ifupdownFile: "iface a inet \\\n dhcp\niface b inet dhcp\n"}, err: "continued"},
		{name: "nothing", in: table{"etc/x": ""}, err: "none of NetworkManager"},
	} {
		p := &Plan{}
		err := Network(p, tt.in, h)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := made(p)
		if strings.Contains(got[nmFile], "uuid=") { // any will do, but the same one each time
			again := &Plan{}
			if err := Network(again, tt.in, h); err != nil || made(again)[nmFile] != got[nmFile] {
				t.Errorf("%s: another profile each time (%v)", tt.name, err)
			}
			a, rest, _ := strings.Cut(got[nmFile], "uuid=")
			got[nmFile] = a + "uuid=c07b71d5-5d96-8b5f-8dd0-d59f1d5bd4a4" + rest[36:]
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
		for _, c := range p.Changes {
			if c.Path == nmFile && (c.Meta.Mode != 0o600 || !c.Exact) {
				t.Errorf("the profile has mode %o; NetworkManager wants 600", c.Meta.Mode)
			}
		}
	}
	for _, bad := range []Host{{MAC: "x", Network: h.Network}, {MAC: h.MAC, Network: &api.Network{Address: "x"}}} {
		if err := Network(&Plan{}, table{}, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if p := (&Plan{}); Network(p, table{}, Host{}) != nil || len(p.Changes) != 0 {
		t.Error("no fixed address changed something")
	}
}
