package personalise

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"labswarm/initramfs-agent/volume"
)

// IsRoot tells whether a folder is the root of an installed Linux system, by
// the file that every distribution since 2012 has (os-release(5)).
func IsRoot(r Root) (bool, error) {
	for _, p := range []string{"etc/os-release", "usr/lib/os-release"} {
		if k, _, err := r.Lstat(p); err != nil {
			return false, err
		} else if k == volume.File || k == volume.Link {
			return true, nil
		}
	}
	return false, nil
}

// nameRule is a single label of RFC 1123, as the inventory takes it.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// CheckName refuses a computer name that would be another one, or more than a
// name, once it stands in a file.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("host name %q: want 1 to 63 letters, digits and hyphens", name)
	}
	return nil
}

// stale are files that tell two copies of one system apart only when each has
// its own: they are made anew at the first start. "*" stands for anything.
var stale = []string{
	"var/lib/systemd/random-seed", "var/lib/urandom/random-seed",
	"var/lib/dhcp/*.lease", "var/lib/dhcp/*.leases", "var/lib/dhclient/*.lease", "var/lib/dhclient/*.leases",
	"var/lib/dhcpcd/*.lease", "var/lib/dhcpcd/*.lease6", "var/lib/dhcpcd/duid", "var/lib/dhcpcd5/*.lease",
	"var/lib/NetworkManager/*.lease", "var/lib/NetworkManager/secret_key",
	"etc/udev/rules.d/70-persistent-net.rules",
}

// Linux says what becomes of a Linux root. newKey makes one SSH host key.
func Linux(r Root, h Host, newKey func(kind, comment string) (Key, error)) (*Plan, error) {
	if err := CheckName(h.Name); err != nil {
		return nil, err
	}
	p := &Plan{}
	for _, step := range []func(*Plan, Root, Host) error{hostname, hosts, machineID, staleFiles} {
		if err := step(p, r, h); err != nil {
			return nil, err
		}
	}
	return p, sshKeys(p, r, h, newKey)
}

var plainFile = volume.Meta{Mode: 0o644}

func hostname(p *Plan, r Root, h Host) error {
	at, k, _, err := resolve(r, "etc/hostname")
	if err != nil {
		return err
	}
	if k != volume.File && k != volume.Nothing {
		return fmt.Errorf("/%s is not a file", at)
	}
	p.put(at, []byte(h.Name+"\n"), plainFile)
	return nil
}

func hosts(p *Plan, r Root, h Host) error {
	at, k, _, err := resolve(r, "etc/hosts")
	if err != nil {
		return err
	}
	var old []byte
	switch k {
	case volume.File:
		if old, err = r.ReadFile(at); err != nil {
			return err
		}
	case volume.Nothing:
		old = []byte("127.0.0.1 localhost\n")
	default:
		return fmt.Errorf("/%s is not a file", at)
	}
	p.put(at, []byte(Hosts(string(old), h.Name)), plainFile)
	return nil
}

// ownAddress is the one by which a Debian system knows itself (Debian
// Reference, 5.1.1).
const ownAddress = "127.0.1.1"

// Hosts returns /etc/hosts with one line for the PC's own name, in the place
// of the one that was there. A domain in the old line stays.
func Hosts(old, name string) string {
	var out []string
	done := false
	own := func(domain string) {
		if !done {
			line := ownAddress + "\t"
			if domain != "" {
				line += name + "." + domain + " "
			}
			out = append(out, line+name)
		}
		done = true
	}
	lines := strings.Split(strings.TrimSuffix(old, "\n"), "\n")
	if old == "" {
		lines = nil
	}
	for _, line := range lines {
		text, _, _ := strings.Cut(line, "#")
		f := strings.Fields(text)
		if len(f) == 0 || f[0] != ownAddress {
			out = append(out, line)
			continue
		}
		domain := ""
		if len(f) > 1 {
			_, domain, _ = strings.Cut(f[1], ".")
		}
		own(domain)
	}
	own("")
	return strings.Join(out, "\n") + "\n"
}

// machineID empties the machine's identity (machine-id(5)): systemd makes a new
// one at the next start. A file that is not there stays so: the whole system
// would count as started for the first time anyway.
func machineID(p *Plan, r Root, _ Host) error {
	at, k, _, err := resolve(r, "etc/machine-id")
	if err != nil {
		return err
	}
	if k == volume.File {
		old, err := r.ReadFile(at)
		if err != nil {
			return err
		}
		// "uninitialized" says the same and more: presets are applied.
		if len(old) > 0 && strings.TrimSpace(string(old)) != "uninitialized" {
			p.put(at, nil, volume.Meta{Mode: 0o444})
		}
	}
	// A link leads to the file above.
	const dbus = "var/lib/dbus/machine-id"
	if k, _, err := r.Lstat(dbus); err != nil || k != volume.File || dbus == at {
		return err
	}
	p.remove(dbus)
	return nil
}

func staleFiles(p *Plan, r Root, _ Host) error {
	names := map[string][]string{}
	for _, pattern := range stale {
		dir := path.Dir(pattern)
		if _, ok := names[dir]; !ok {
			list, err := r.Names(dir)
			if err != nil {
				return err
			}
			names[dir] = list
		}
		for _, n := range names[dir] {
			if ok, err := path.Match(path.Base(pattern), n); err != nil || !ok {
				continue
			}
			if k, _, err := r.Lstat(path.Join(dir, n)); err != nil {
				return err
			} else if k == volume.File {
				p.remove(path.Join(dir, n))
			}
		}
	}
	if k, _, err := r.Lstat("var/lib"); err != nil {
		return err
	} else if k == volume.Nothing {
		p.Warnings = append(p.Warnings, "/var lies on a partition of its own: its DHCP leases and its random seed are still the image's")
	}
	return nil
}
