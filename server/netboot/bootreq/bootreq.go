// Package bootreq holds the words that the boot protocols and the daemon share:
// what a booting PC asked (Request), what it gets (Answer), and the interface
// the daemon implements (Decider). It decides nothing and opens no socket; it
// is the leaf that netboot and its protocol packages import, and netboot
// re-exports every name as an alias.
package bootreq

import (
	"context"
	"net/netip"

	"labswarm/server/decide"
)

// Proto is the boot protocol that asks.
type Proto = decide.Proto

// Request is what one boot protocol knows about the asking machine. Fields that
// the protocol does not carry are zero.
type Request struct {
	Proto       Proto
	MAC         string     // lower case with colons, "" = unknown
	UUID        string     // canonical lower-case text in the byte order of the wire: compare with ident.SameUUID or ident.UUIDKey
	Arch        uint16     // DHCP option 93 (RFC 4578 2.1), 0 = BIOS or not known
	IP          netip.Addr // the asker's address, unmapped; invalid before it has one
	UserClass   string     // DHCP option 77 (RFC 3004)
	VendorClass string     // DHCP option 60
	File        string     // the name asked for, cleaned; "" on DHCP
}

// BootStyle values: how Local is rendered.
const (
	StyleSilent = "silent" // give no boot fields: the firmware goes on to its next entry
	StyleChain  = "chain"  // answer with the normal chain, whose script starts the local disk
)

// Answer is Decide's result plus the facts that rendering needs. The zero value
// boots the local disk.
type Answer struct {
	Decision   decide.Decision
	Host       string   // host name for the log and the screen, "" = unknown host
	KernelArgs string   // extra kernel arguments of this host, [0-9A-Za-z.,:_=/@+-] and single blanks
	Loaders    []string // EFI paths of the disk's own loaders for chainload, nil = the generic list
	BootStyle  string   // StyleSilent, StyleChain or "": silent in proxy mode, chain in mode dhcp
	Kernel     string   // boot file name of the kernel, "" = vmlinuz
	Initrd     string   // boot file name of the initramfs, "" = initrd.img
	NBP        string   // first boot file for firmware that is not iPXE, "" = by architecture
	ProxyStyle string   // "offer", "4011" or "menu" for this host, "" = the server's setting
}

// SightingKind says what was seen.
type SightingKind string

const (
	// SightOS: a DHCP packet without PXE class and without the agent's user
	// class: an installed system is running on this MAC.
	SightOS SightingKind = "os"
	// SightForeignBoot: another server offered boot files on the lab interface.
	SightForeignBoot SightingKind = "foreign-boot"
	// SightUnsupported: a PC asked to boot with an architecture we have no
	// files for (Arch says which).
	SightUnsupported SightingKind = "unsupported-arch"
)

// Sighting is something seen on the wire that is no boot question.
type Sighting struct {
	Kind        SightingKind
	MAC         string     // whose packet it was; for SightForeignBoot the other server's
	IP          netip.Addr // address if the packet named one
	Hostname    string     // DHCP option 12, printable ASCII, at most 63 bytes
	VendorClass string     // DHCP option 60, printable ASCII
	MessageType string     // DISCOVER, REQUEST, OFFER, ...
	Arch        uint16     // option 93, for SightUnsupported
	Detail      string     // for people: the file another server offered
}

// Decider answers boot questions. The daemon implements it on store, inventory
// and job. All methods are called from several goroutines at once.
type Decider interface {
	// DecideBoot says what the machine gets. It must return within about 3 s
	// (ctx ends then and the server answers Local). Called for every packet of
	// a boot, so it must be idempotent within a boot session. A request whose
	// session was answered Agent comes again with ProtoHTTPFile or ProtoTFTP
	// and the file name for each kernel and initramfs fetch.
	DecideBoot(ctx context.Context, r Request) Answer
	// Sighting tells of a packet that is no boot question. Must not block.
	Sighting(s Sighting)
	// InitramfsFetched tells that the whole initramfs went to the host with
	// this MAC over a proven connection: the soft attempt counter's event. It is
	// called once per fetch, so a host that retries is counted again. Must not
	// block for long: the transfer's goroutine waits for it.
	InitramfsFetched(mac string)
}
