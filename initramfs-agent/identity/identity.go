// Package identity collects what a machine says of itself: SMBIOS, network
// adapters, disks, firmware. It is evidence for the server's records, not a
// credential, and it only reads. Called by package deploy.
package identity

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"labswarm/api"
	"labswarm/initramfs-agent/bootenv"
)

// Source says where to look.
type Source struct {
	Sys    string // where sysfs is mounted
	BootIF string // MAC of the boot NIC, "" = unknown
	// Stand-in replaces the SMBIOS facts where there are none of this machine:
	// an agent in a network namespace, and its NICs. Empty fields are not replaced.
	StandIn *api.Evidence
}

// ReadStandIn reads the evidence file of an agent that runs beside a system.
func ReadStandIn(path string) (*api.Evidence, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	var e api.Evidence
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("read evidence %q: %w", path, err)
	}
	e.UUID = UUID(e.UUID)
	return &e, nil
}

// Collect returns the evidence of this machine. disks come from disk.Set and
// noDriver from coldplug.
func (s Source) Collect(disks []api.Disk, noDriver []string) api.Evidence {
	e := api.Evidence{
		UUID: UUID(s.dmi("product_uuid")), Serial: Text(s.dmi("product_serial")),
		Vendor: Text(s.dmi("sys_vendor")), Product: Text(s.dmi("product_name")),
		NICs: s.nics(), Disks: disks, RAMBytes: bootenv.RAMBytes(),
		Firmware: bootenv.Firmware(), SecureBoot: bootenv.SecureBoot(), Lockdown: bootenv.Lockdown(),
		Kernel: bootenv.Kernel(), NoDriver: noDriver,
		UptimeMs: bootenv.Uptime().Milliseconds(), AgentRSSByte: bootenv.RSSBytes(),
	}
	if f := s.StandIn; f != nil {
		if len(f.NICs) > 0 {
			e.NICs = f.NICs
		}
		for _, p := range []struct {
			to   *string
			from string
		}{{&e.UUID, f.UUID}, {&e.Serial, f.Serial}, {&e.Vendor, f.Vendor}, {&e.Product, f.Product}, {&e.Firmware, f.Firmware}} {
			if p.from != "" {
				*p.to = p.from
			}
		}
	}
	return e
}

func (s Source) dmi(name string) string {
	b, err := os.ReadFile(filepath.Join(s.Sys, "class", "dmi", "id", name))
	if err != nil {
		return ""
	}
	return string(b)
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// UUID returns the canonical lower-case text of an SMBIOS UUID, "" when it is
// malformed or one of those that makers forget to fill in.
func UUID(text string) string {
	u := strings.ToLower(strings.TrimSpace(text))
	bare := strings.ReplaceAll(u, "-", "")
	if !uuidForm.MatchString(u) || oneCharacter(bare) || u == "03000200-0400-0500-0006-000700080009" {
		return ""
	}
	return u
}

// SwapUUID returns the UUID with its first three fields in the other byte
// order: SMBIOS 2.6 made them little-endian, firmware and PXE ROMs disagree.
func SwapUUID(u string) string {
	if !uuidForm.MatchString(u) {
		return ""
	}
	rev := func(s string) string {
		var b strings.Builder
		for i := len(s) - 2; i >= 0; i -= 2 {
			b.WriteString(s[i : i+2])
		}
		return b.String()
	}
	return rev(u[0:8]) + "-" + rev(u[9:13]) + "-" + rev(u[14:18]) + u[18:]
}

// Text returns a serial number or name, "" when it is one of the texts that
// stand for "nothing".
func Text(raw string) string {
	v := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, raw))
	v = v[:min(len(v), 128)]
	switch strings.ToLower(v) {
	case "to be filled by o.e.m.", "default string", "system serial number", "system product name",
		"system manufacturer", "none", "not specified", "not applicable", "n/a", "0123456789", "123456789", "invalid":
		return ""
	}
	if oneCharacter(v) {
		return ""
	}
	return v
}

func oneCharacter(v string) bool { return v == "" || strings.Count(v, v[:1]) == len(v) }

// nics lists the network adapters with their permanent addresses. It asks the
// kernel by netlink, so that it sees the adapters of its own network
// namespace.
func (s Source) nics() []api.NIC {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	out := []api.NIC{}
	for _, l := range links {
		a := l.Attrs()
		mac := a.PermHWAddr
		if !usable(mac) {
			mac = a.HardwareAddr // a virtual adapter has no permanent address
		}
		if a.Flags&net.FlagLoopback != 0 || l.Type() == "bridge" || !usable(mac) {
			continue
		}
		n := api.NIC{Name: a.Name, MAC: mac.String(), SpeedMbps: s.speed(a.Name), Boot: s.BootIF == mac.String()}
		n.Bus, n.Driver = s.driver(a.Name)
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b api.NIC) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func usable(mac net.HardwareAddr) bool {
	return len(mac) == 6 && strings.Trim(mac.String(), "0:") != "" && mac[0]&1 == 0
}

func (s Source) speed(name string) int {
	b, err := os.ReadFile(filepath.Join(s.Sys, "class", "net", name, "speed"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (s Source) driver(name string) (bus, driver string) {
	dev := filepath.Join(s.Sys, "class", "net", name, "device")
	if p, err := filepath.EvalSymlinks(filepath.Join(dev, "subsystem")); err == nil {
		bus = filepath.Base(p)
	}
	if p, err := filepath.EvalSymlinks(filepath.Join(dev, "driver")); err == nil {
		driver = filepath.Base(p)
	}
	return bus, driver
}
