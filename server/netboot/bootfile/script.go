package bootfile

import (
	"fmt"
	"net/netip"
	"strings"

	"labswarm/server/decide"
	"labswarm/server/inventory/ident"
	"labswarm/server/netboot/bootreq"
)

// Site is what the scripts say about this server.
type Site struct {
	IP         netip.Addr // our address on the lab interface
	HTTPPort   int        // of the boot files, 0 = 80
	AgentPort  int        // of the agent API, 0 = 7440
	KeyID      string     // for labswarm.kid
	KernelArgs string     // appended to every agent command line
}

// Scripts renders boot scripts. Every value in them is validated first; MAC and
// UUID are parsed and printed again, never echoed.
type Scripts struct {
	http, tftp string // as URLs and GRUB devices name us
	base       string // kernel arguments before BOOTIF
	extra      string
}

// NewScripts checks the site's values.
func NewScripts(s Site) (*Scripts, error) {
	if !s.IP.Is4() {
		return nil, fmt.Errorf("render scripts: server address %v is not IPv4", s.IP)
	}
	if !ValidKernelArgs(s.KernelArgs) {
		return nil, fmt.Errorf("render scripts: kernel arguments %q: only [0-9A-Za-z.,:_=/@+-] and single blanks are allowed", s.KernelArgs)
	}
	if s.KeyID == "" || !ValidKernelArgs(s.KeyID) || strings.Contains(s.KeyID, " ") {
		return nil, fmt.Errorf("render scripts: key id %q: want lower-case hexadecimal text", s.KeyID)
	}
	agentPort := s.AgentPort
	if agentPort == 0 {
		agentPort = 7440
	}
	web := s.IP.String()
	if s.HTTPPort != 0 && s.HTTPPort != 80 {
		web = fmt.Sprintf("%s:%d", s.IP, s.HTTPPort)
	}
	return &Scripts{
		http: web, tftp: s.IP.String(), extra: s.KernelArgs,
		base: fmt.Sprintf("quiet panic=10 labswarm.server=%s:%d labswarm.kid=%s", s.IP, agentPort, s.KeyID),
	}, nil
}

// ValidKernelArgs reports whether args may stand on a kernel line of an iPXE or
// GRUB script: no quoting, expansion or separator of either shell.
func ValidKernelArgs(args string) bool {
	if len(args) > 1024 || strings.Contains(args, "  ") || strings.TrimSpace(args) != args {
		return false
	}
	for _, r := range args {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		case strings.ContainsRune(".,:_=/@+- ", r):
		default:
			return false
		}
	}
	return true
}

// ValidLoader reports whether p is a path on the ESP that may stand in a GRUB
// script: /EFI/....efi in plain characters.
func ValidLoader(p string) bool {
	if len(p) > 128 || !strings.HasPrefix(strings.ToUpper(p), "/EFI/") || !strings.HasSuffix(strings.ToLower(p), ".efi") || strings.Contains(p, "..") {
		return false
	}
	return strings.IndexFunc(p, func(r rune) bool { return !nameRune(r) && r != '/' }) < 0
}

// BootURL is the iPXE script's address with the PC's identity written out, at
// most 127 bytes for the DHCP file field. Values that do not parse are left out.
func (s *Scripts) BootURL(mac, uuid string) string {
	return "http://" + s.http + "/boot.ipxe" + query(mac, uuid)
}

// FileURL is the address of a boot file, for UEFI HTTP boot.
func (s *Scripts) FileURL(name string) string { return "http://" + s.http + "/" + name }

func query(mac, uuid string) string {
	var q []string
	if m, err := ident.ParseMAC(mac); err == nil {
		q = append(q, "mac="+m)
	}
	if u, err := ident.ParseUUID(uuid); err == nil {
		q = append(q, "uuid="+u)
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + strings.Join(q, "&")
}

// cmdline is the agent's kernel command line: addresses and a key id, nothing
// that may start a write.
func (s *Scripts) cmdline(a bootreq.Answer, mac string) string {
	line := s.base
	if m, err := ident.ParseMAC(mac); err == nil {
		line += " BOOTIF=01-" + ident.Hyphens(m)
	}
	for _, more := range []string{s.extra, a.KernelArgs} {
		if more != "" && ValidKernelArgs(more) {
			line += " " + more
		}
	}
	return line
}

// fileOr returns name if it is a clean file name, else def.
func fileOr(name, def string) string {
	if cleanName(name) {
		return name
	}
	return def
}

// Autoexec is /autoexec.ipxe, which UEFI iPXE since 2022 fetches from its own
// folder. It asks for IPv4 only, so that iPXE does not wait for IPv6.
func (s *Scripts) Autoexec() []byte {
	return []byte("#!ipxe\n" +
		"# autoexec.ipxe (UEFI iPXE >= 2022)\n" +
		"ifconf -c dhcp || goto out\n" +
		"chain http://" + s.http + "/boot.ipxe?mac=${netX/mac}&uuid=${uuid} || goto out\n" +
		":out\n" +
		"exit 1\n")
}

// IPXE is /boot.ipxe for one PC. Ignore renders as Local: whoever asks must not
// stop at a prompt.
func (s *Scripts) IPXE(a bootreq.Answer, mac, uuid string) []byte {
	switch a.Decision.Action {
	case decide.Agent, decide.Enrol:
		return s.ipxeAgent(a, mac)
	case decide.Hold:
		return []byte("#!ipxe\n" +
			"# boot.ipxe, decision = hold\n" +
			":again\n" +
			"echo labswarm: HOLD - see console\n" +
			"sleep 60\n" +
			"chain --replace " + s.BootURL(mac, uuid) + " || goto again\n")
	default:
		// `exit 1` goes on to the next UEFI boot entry; `exit` and `exit 0`
		// end in the firmware's setup screen.
		return []byte("#!ipxe\n" +
			"# boot.ipxe, decision = local\n" +
			"iseq ${platform} efi && exit 1 ||\n" +
			"sanboot --no-describe --drive 0x80 || exit 1\n")
	}
}

// initrd is the initramfs of an answer. Enrol has one of its own, whatever else
// the answer says.
func initrd(a bootreq.Answer) string {
	if a.Decision.Action == decide.Enrol {
		return NameEnrolInitrd
	}
	return fileOr(a.Initrd, NameInitrd)
}

func (s *Scripts) ipxeAgent(a bootreq.Answer, mac string) []byte {
	kernel, initrd := s.FileURL(fileOr(a.Kernel, NameKernel)), s.FileURL(initrd(a))
	return []byte("#!ipxe\n" +
		"# boot.ipxe, decision = " + a.Decision.Action.String() + "\n" +
		"set n:int32 0\n" +
		":again\n" +
		// initrd= is needed for UEFI and harmless for BIOS.
		"kernel " + kernel + " initrd=initrd.img " + s.cmdline(a, mac) + " || goto slow\n" +
		"initrd --name initrd.img " + initrd + " || goto slow\n" +
		"boot || goto slow\n" +
		":slow\n" +
		"imgfree\n" +
		"inc n\n" +
		"iseq ${n} 5 && reboot ||\n" +
		"sleep 5\n" +
		"goto again\n")
}

// GrubCfg is /grub/grub.cfg, static and the same for all. GRUB 2.06 has no HTTP
// in its signed network image, so its first configfile fails and the TFTP line
// serves it. Never `exit`: OVMF then opens its setup screen and stays there.
func (s *Scripts) GrubCfg() []byte {
	return []byte("# /grub/grub.cfg, static, the same for all\n" +
		"set srv=$net_default_server\n" +
		"if [ -z \"$srv\" ]; then set srv=$pxe_default_server; fi\n" +
		"smbios --type 1 --get-uuid 8 --set uuid\n" +
		"for try in 1 2 3; do\n" +
		"  configfile \"(http,$srv)/host.cfg?mac=$net_default_mac&uuid=$uuid\"\n" +
		"  configfile \"(tftp,$srv)/host/$net_default_mac.cfg\"\n" +
		"  sleep 3\n" +
		"done\n" +
		"sleep 10\n" +
		"reboot\n")
}

// GenericLoaders is the chainload list for a host whose image is not known.
func GenericLoaders() []string {
	return []string{"/EFI/debian/shimx64.efi", "/EFI/ubuntu/shimx64.efi", "/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/BOOT/BOOTX64.EFI"}
}

// GRUB is /host.cfg (viaTFTP false) or /host/<mac>.cfg (true) for one PC. The
// script names files by the protocol it came over. configfile opens a new
// context without our variables, so everything is written out.
func (s *Scripts) GRUB(a bootreq.Answer, mac string, viaTFTP bool) []byte {
	root := "(http," + s.http + ")"
	if viaTFTP {
		root = "(tftp," + s.tftp + ")"
	}
	switch a.Decision.Action {
	case decide.Agent, decide.Enrol:
		return []byte("# host.cfg, decision = " + a.Decision.Action.String() + "\n" +
			"linux  " + root + "/" + fileOr(a.Kernel, NameKernel) + " " + s.cmdline(a, mac) + "\n" +
			"initrd " + root + "/" + initrd(a) + "\n" +
			"boot\n")
	case decide.Hold:
		// Returning leads back into grub.cfg's loop, which asks again and at
		// its end reboots: never a prompt, never the half-written disk.
		return []byte("# host.cfg, decision = hold\n" +
			"echo \"labswarm: HOLD - see console\"\n" +
			"sleep 60\n")
	default:
		return grubLocal(a.Loaders)
	}
}

func grubLocal(loaders []string) []byte {
	var ok []string
	for _, l := range loaders {
		if ValidLoader(l) && len(ok) < 16 {
			ok = append(ok, l)
		}
	}
	if len(ok) == 0 {
		ok = GenericLoaders()
	}
	return []byte("# host.cfg, decision = local\n" +
		"for f in " + strings.Join(ok, " ") + "; do\n" +
		"  if search --no-floppy --file $f --set=root; then chainloader $f; boot; fi\n" +
		"done\n" +
		"sleep 10\n" +
		"reboot\n")
}
