package bootfile

import (
	"path"
	"strings"

	"labswarm/server/inventory/ident"
)

// Script names served by both TFTP and HTTP.
const (
	NameBootIPXE = "boot.ipxe"
	NameAutoexec = "autoexec.ipxe"
	NameHostCfg  = "host.cfg"
	NameGrubCfg  = "grub/grub.cfg"
)

// CleanPath turns a requested name into the spelling of the fixed map: shim
// asks for "//grubx64.efi", some firmware writes backslashes, GRUB a leading
// slash and OVMF none. The result has no leading slash and cannot climb: ".."
// is resolved below the root. Case is kept.
func CleanPath(name string) string {
	return strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(name, "\\", "/")), "/")
}

// HostCfgMAC returns the MAC of "host/<mac>.cfg", canonical.
func HostCfgMAC(clean string) (mac string, ok bool) {
	rest, ok := strings.CutPrefix(clean, "host/")
	if !ok {
		return "", false
	}
	rest, ok = strings.CutSuffix(rest, ".cfg")
	if !ok {
		return "", false
	}
	mac, err := ident.ParseMAC(rest)
	return mac, err == nil
}
