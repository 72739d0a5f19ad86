package personalise

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"labswarm/initramfs-agent/volume"
)

// table is a root: content by path; a value that begins with "->" is a link.
type table map[string]string

func (r table) Lstat(p string) (volume.Kind, volume.Meta, error) {
	if text, ok := r[p]; ok {
		if strings.HasPrefix(text, "->") {
			return volume.Link, volume.Meta{}, nil
		}
		return volume.File, volume.Meta{}, nil
	}
	for name := range r {
		if strings.HasPrefix(name, p+"/") {
			return volume.Dir, volume.Meta{}, nil
		}
	}
	return volume.Nothing, volume.Meta{}, nil
}

func (r table) ReadFile(p string) ([]byte, error) {
	text, ok := r[p]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func (r table) ReadLink(p string) (string, error) { return strings.TrimPrefix(r[p], "->"), nil }

func (r table) Names(dir string) ([]string, error) {
	var out []string
	for name := range r {
		if path.Dir(name) == dir {
			out = append(out, path.Base(name))
		}
	}
	slices.Sort(out)
	return out, nil
}

// after carries a plan out on a table.
func (r table) after(p *Plan) table {
	out := table{}
	for k, v := range r {
		out[k] = v
	}
	for _, c := range p.Changes {
		if delete(out, c.Path); !c.Remove {
			out[c.Path] = string(c.Content)
		}
	}
	return out
}

func fakeKey(kind, comment string) (Key, error) {
	return Key{Private: []byte("private " + kind + " " + comment), Public: "ssh-" + kind + " AAAA"}, nil
}

var pc = Host{Name: "pc07", Room: "A101", Image: "debian/1", Job: 3}

func TestLinux(t *testing.T) {
	base := table{"etc/hostname": "golden\n", "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 golden\n", "var/lib/x": "",
		"usr/lib/os-release": "NAME=x"}
	named := func(more table) table {
		out := table{"etc/hostname": "pc07\n", "etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tpc07\n", "var/lib/x": "", "usr/lib/os-release": "NAME=x"}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	keys := table{"etc/ssh/ssh_host_ed25519_key": "private ed25519 root@pc07", "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA root@pc07\n",
		"etc/ssh/ssh_host_ecdsa_key": "private ecdsa root@pc07", "etc/ssh/ssh_host_ecdsa_key.pub": "ssh-ecdsa AAAA root@pc07\n", "etc/ssh/sshd_config": ""}
	with := func(a table, more ...string) table {
		out := table{}
		for k, v := range a {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	for _, tt := range []struct {
		name     string
		in, want table
		warn     string
	}{
		{name: "name only", in: table{}, want: named(nil)},
		{name: "machine id", in: table{"etc/machine-id": "0123\n"}, want: named(table{"etc/machine-id": ""})},
		{name: "machine id, empty already", in: table{"etc/machine-id": ""}, want: named(table{"etc/machine-id": ""})},
		{name: "machine id, uninitialized", in: table{"etc/machine-id": "uninitialized\n"}, want: named(table{"etc/machine-id": "uninitialized\n"})},
		{name: "machine id of D-Bus", in: table{"etc/machine-id": "1\n", "var/lib/dbus/machine-id": "1\n"}, want: named(table{"etc/machine-id": ""})},
		{name: "machine id of D-Bus as a link", in: table{"var/lib/dbus/machine-id": "->/etc/machine-id"}, want: named(table{"var/lib/dbus/machine-id": "->/etc/machine-id"})},
		{name: "machine id that leads to that of D-Bus", in: table{"etc/machine-id": "->../var/lib/dbus/machine-id", "var/lib/dbus/machine-id": "1\n"},
			want: named(table{"etc/machine-id": "->../var/lib/dbus/machine-id", "var/lib/dbus/machine-id": ""})},
		{name: "no SSH server", in: table{"etc/ssh/ssh_config": ""}, want: named(table{"etc/ssh/ssh_config": ""})},
		{name: "SSH server without keys", in: table{"etc/ssh/sshd_config": ""}, want: named(keys)},
		{name: "SSH server with keys", in: table{"etc/ssh/sshd_config": "", "etc/ssh/ssh_host_ed25519_key": "old", "etc/ssh/ssh_host_dsa_key": "old", "etc/ssh/ssh_host_ecdsa_key-cert.pub": "old"}, want: named(keys)},
		{name: "RSA key", in: table{"etc/ssh/sshd_config": "", "etc/ssh/ssh_host_rsa_key": "old", "etc/ssh/ssh_host_rsa_key.pub": "old"},
			want: named(with(keys, "etc/ssh/ssh_host_rsa_key", "private rsa root@pc07", "etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA root@pc07\n"))},
		{name: "leases and seeds", in: table{"var/lib/dhcp/dhclient.eth0.leases": "x", "var/lib/dhcp/README": "x", "var/lib/systemd/random-seed": "x", "var/lib/NetworkManager/secret_key": "x",
			"var/lib/NetworkManager/internal-1-eth0.lease": "x", "var/lib/NetworkManager/NetworkManager.state": "x", "etc/udev/rules.d/70-persistent-net.rules": "x", "etc/udev/rules.d/60-a.rules": "x"},
			want: named(table{"var/lib/dhcp/README": "x", "var/lib/NetworkManager/NetworkManager.state": "x", "etc/udev/rules.d/60-a.rules": "x"})},
		{name: "hostname is a link", in: table{"etc/hostname": "->/etc/sysconfig/name", "etc/sysconfig/name": "golden"}, want: named(table{"etc/hostname": "->/etc/sysconfig/name", "etc/sysconfig/name": "pc07\n"})},
		{name: "no hosts, no /var", in: table{"-": "", "etc/hosts": "-", "var/lib/x": "-"}, want: table{"etc/hostname": "pc07\n", "etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tpc07\n", "usr/lib/os-release": "NAME=x"},
			warn: "/var lies on a partition of its own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := with(base)
			for k, v := range tt.in {
				if in[k] = v; v == "-" || k == "-" {
					delete(in, k)
				}
			}
			p, err := Linux(in, pc, fakeKey)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, in.after(p)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if got := strings.Join(p.Warnings, " "); !strings.Contains(got, tt.warn) || (got == "") != (tt.warn == "") {
				t.Errorf("warnings %q; want %q", got, tt.warn)
			}
			again, err := Linux(in.after(p), pc, fakeKey)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(in.after(p), in.after(p).after(again)); d != "" {
				t.Errorf("a second time changes more:\n%s", d)
			}
		})
	}
}

func TestLinuxRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		in   table
		host string
	}{
		"hostname is a folder": {table{"etc/hostname/x": ""}, "pc1"},
		"hosts is a folder":    {table{"etc/hosts/x": ""}, "pc1"},
		"links in a circle":    {table{"etc/hostname": "->hosts", "etc/hosts": "->hostname"}, "pc1"},
		"two lines":            {table{}, "pc1\nroot"},
		"path":                 {table{}, "../../x"},
		"dot":                  {table{}, "pc1.example"},
		"empty":                {table{}, ""},
		"hyphen at the end":    {table{}, "pc1-"},
		"too long":             {table{}, strings.Repeat("a", 64)},
	} {
		if p, err := Linux(tt.in, Host{Name: tt.host}, fakeKey); err == nil {
			t.Errorf("%s: %+v; want an error", name, p)
		}
	}
	broken := errors.New("no random numbers")
	if _, err := Linux(table{"etc/ssh/sshd_config": ""}, pc, func(string, string) (Key, error) { return Key{}, broken }); !errors.Is(err, broken) {
		t.Errorf("no keys: %v", err)
	}
}

func TestHosts(t *testing.T) {
	for _, tt := range [][2]string{
		{"", "127.0.1.1\tpc07\n"},
		{"127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.1.1\tpc07\n"},
		{"127.0.1.1 golden\n::1 x\n", "127.0.1.1\tpc07\n::1 x\n"},
		{"127.0.1.1\tgolden.lab.example golden # ours\n", "127.0.1.1\tpc07.lab.example pc07\n"},
		{"127.0.1.1 a\n127.0.1.1 b.example\n", "127.0.1.1\tpc07\n"},
		{"# 127.0.1.1 golden\n", "# 127.0.1.1 golden\n127.0.1.1\tpc07\n"},
		{"127.0.1.10 printer\n\n127.0.1.1\n", "127.0.1.10 printer\n\n127.0.1.1\tpc07\n"},
	} {
		if got := Hosts(tt[0], "pc07"); got != tt[1] {
			t.Errorf("Hosts(%q) = %q; want %q", tt[0], got, tt[1])
		}
	}
}

// TestHostsProperties: whatever stands in the file, one line is the PC's own, all
// the others stay as they are, and doing it twice is doing it once.
func TestHostsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.OneOf(rapid.StringMatching(`[ -~]{0,30}`), rapid.StringMatching(`127\.0\.1\.1[ \t][a-z.]{0,9}`)), 0, 8).Draw(t, "lines")
		old := strings.Join(lines, "\n")
		got := Hosts(old, "pc07")
		if again := Hosts(got, "pc07"); again != got {
			t.Fatalf("twice: %q, once: %q", again, got)
		}
		keep := func(text string) (out []string, own int) {
			for line := range strings.Lines(text) {
				if f := strings.Fields(strings.SplitN(line, "#", 2)[0]); len(f) > 0 && f[0] == ownAddress {
					own++
				} else {
					out = append(out, strings.TrimSuffix(line, "\n"))
				}
			}
			return out, own
		}
		was, _ := keep(old)
		is, own := keep(got)
		if own != 1 || !slices.Equal(was, is) {
			t.Fatalf("Hosts(%q) = %q", old, got)
		}
	})
}

func TestNewKey(t *testing.T) {
	for kind, algo := range map[string]string{"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "ssh-rsa"} {
		k, err := NewKey(kind, "root@pc07")
		if err != nil {
			t.Fatal(err)
		}
		s, err := ssh.ParsePrivateKey(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))); got != k.Public || !strings.HasPrefix(got, algo+" ") {
			t.Errorf("%s: the private key is of %s, the public one %s", kind, got, k.Public)
		}
	}
	if _, err := NewKey("dsa", ""); err == nil {
		t.Error("a DSA key was made")
	}
}

func TestHostFile(t *testing.T) {
	p, err := HostFile(pc)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"format":1,"host":"pc07","room":"A101","image":"debian/1","job":3}` + "\n"
	if got := string(p.Changes[1].Content); p.Changes[0].Path != "labswarm" || p.Changes[1].Path != "labswarm/host.json" || got != want {
		t.Errorf("%s = %s; want %s", p.Changes[1].Path, got, want)
	}
	if _, err := HostFile(Host{Name: `a"b`}); err == nil {
		t.Error("a name with a quote was taken")
	}
}
