package classroom

import (
	"maps"
	"strings"
	"testing"
)

// TestCompareTrees checks the check: a disk that is right passes, and each single
// thing that personalisation should have done, or should not, is found.
func TestCompareTrees(t *testing.T) {
	file := func(about, sum, text string) *entry {
		return &entry{about: about, data: "9 1.0 ", sum: sum, text: text}
	}
	image := map[string]*entry{
		"etc": {about: "d 755 0:0"}, "usr/lib/os-release": file("f 644 0:0", "os", ""), "bin/ls": file("f 755 0:0", "ls", ""),
		"etc/hostname": file("f 644 0:0", "h", "golden\n"), "etc/hosts": file("f 644 0:0", "ho", "127.0.0.1 localhost\n127.0.1.1 golden\n::1 x\n"),
		"etc/machine-id": file("f 444 0:0", "m", "0123\n"), "var/lib/dbus/machine-id": file("f 644 0:0", "m", ""),
		"etc/ssh/ssh_host_rsa_key": file("f 600 0:0", "k1", ""), "etc/ssh/ssh_host_dsa_key": file("f 600 0:0", "k2", ""),
		"var/lib/systemd/random-seed": file("f 600 0:0", "r", ""), "var/lib/dhcp/dhclient.eth0.leases": file("f 644 0:0", "l", ""),
	}
	right := map[string]*entry{
		"etc": {about: "d 755 0:0"}, "usr/lib/os-release": file("f 644 0:0", "os", ""), "bin/ls": file("f 755 0:0", "ls", ""),
		"etc/hostname": file("f 644 0:0", "h2", "pc01\n"), "etc/hosts": file("f 644 0:0", "ho2", "127.0.0.1 localhost\n127.0.1.1\tpc01\n::1 x\n"),
		"etc/machine-id":           file("f 444 0:0", "e", ""),
		"etc/ssh/ssh_host_rsa_key": file("f 600 0:0", "n1", ""), "etc/ssh/ssh_host_ed25519_key": file("f 600 0:0", "n2", ""),
		"etc/ssh/ssh_host_ed25519_key.pub": file("f 644 0:0", "n4", ""), "etc/ssh/ssh_host_ecdsa_key": file("f 600 0:0", "n5", ""), "etc/ssh/ssh_host_ecdsa_key.pub": file("f 644 0:0", "n6", ""),
	}
	if n, err := compareTrees(image, right, "pc01"); err != nil || n != len(image) {
		t.Fatalf("a right disk: %d, %v", n, err)
	}
	for name, tt := range map[string]struct {
		path string
		to   *entry // nil = not there
	}{
		"other file changed":          {"bin/ls", file("f 755 0:0", "other", "")},
		"other file's mode":           {"bin/ls", file("f 4755 0:0", "ls", "")},
		"other file's time":           {"bin/ls", &entry{about: "f 755 0:0", data: "9 2.0 ", sum: "ls"}},
		"other file gone":             {"bin/ls", nil},
		"folder's owner":              {"etc", &entry{about: "d 755 1:0"}},
		"new file":                    {"etc/new", file("f 644 0:0", "x", "")},
		"temporary file left":         {"etc/.labswarm-new", file("f 644 0:0", "x", "")},
		"image's name":                {"etc/hostname", file("f 644 0:0", "h", "golden\n")},
		"another PC's name":           {"etc/hostname", file("f 644 0:0", "h", "pc02\n")},
		"name's owner":                {"etc/hostname", file("f 644 7:0", "h2", "pc01\n")},
		"no name":                     {"etc/hostname", nil},
		"image's line in hosts":       {"etc/hosts", file("f 644 0:0", "ho", "127.0.0.1 localhost\n127.0.1.1 golden\n::1 x\n")},
		"other line of hosts":         {"etc/hosts", file("f 644 0:0", "ho", "127.0.1.1\tpc01\n::1 x\n")},
		"two lines in hosts":          {"etc/hosts", file("f 644 0:0", "ho", "127.0.0.1 localhost\n127.0.1.1 pc01\n127.0.1.1 pc01\n::1 x\n")},
		"image's machine id":          {"etc/machine-id", image["etc/machine-id"]},
		"no machine id":               {"etc/machine-id", nil},
		"D-Bus's machine id":          {"var/lib/dbus/machine-id", image["var/lib/dbus/machine-id"]},
		"image's SSH key":             {"etc/ssh/ssh_host_rsa_key", image["etc/ssh/ssh_host_rsa_key"]},
		"image's SSH key, newer":      {"etc/ssh/ssh_host_rsa_key", &entry{about: "f 600 0:0", data: "9 5.0 ", sum: "k1"}},
		"SSH key readable by all":     {"etc/ssh/ssh_host_ed25519_key", file("f 644 0:0", "n2", "")},
		"no SSH key of a new kind":    {"etc/ssh/ssh_host_ecdsa_key", nil},
		"SSH key of a kind not to be": {"etc/ssh/ssh_host_dsa_key", file("f 600 0:0", "n3", "")},
		"seed":                        {"var/lib/systemd/random-seed", image["var/lib/systemd/random-seed"]},
		"lease":                       {"var/lib/dhcp/dhclient.eth0.leases", image["var/lib/dhcp/dhclient.eth0.leases"]},
	} {
		disk := maps.Clone(right)
		if disk[tt.path] = tt.to; tt.to == nil {
			delete(disk, tt.path)
		}
		if _, err := compareTrees(image, disk, "pc01"); err == nil || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: %v; want it found at %s", name, err, tt.path)
		}
	}
}
