// Package classroom is the virtual classroom: it plays the admin and the PCs. It
// starts the real labswarm server in a network of its own, imports an image,
// creates a job, switches on virtual terminals and follows them until their new
// system has booted.
//
// It decides nothing about netboot or deployment: everything goes through the
// labswarm program and its admin socket, as with real PCs. `labswarm classroom
// run`, the demo and the tests in e2e call it.
package classroom

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"labswarm/api"
	"labswarm/internal/testvm"
)

// Values of Options.UI.
const (
	UIConsole = "console" // the console on the caller's terminal
	UINone    = "none"    // plain progress lines
)

// Values of Options.DHCP.
const (
	DHCPProxy = "proxy" // dnsmasq plays the school's router and gives the addresses
	DHCPOwn   = "dhcp"  // labswarm gives the addresses
)

// Room is the room that all terminals are in.
const Room = "classroom"

// Options say what to run. Exactly one of Image and ImageFile is required; the
// zero value of everything else is a sensible default.
type Options struct {
	Image     string // name, or name/version, of an image in StateDir
	ImageFile string // raw disk image, imported first
	ImageName string // its name in the store; "" = made from the file's name

	Terminals int               // 0 = 3
	Firmware  []testvm.Firmware // dealt round-robin; empty = bios, uefi, secureboot
	DiskBytes int64             // of each terminal; 0 = 8 GiB
	DiskBus   testvm.Bus        // "" = virtio
	MemoryMiB int               // of each terminal; 0 = 512
	DHCP      string            // DHCPProxy (default) or DHCPOwn

	KeepDisks  string         // folder for the disks NAME.raw, which are used again when they exist; "" = temporary
	Expect     *regexp.Regexp // on the serial console after the last reboot, {host} = the terminal's name; nil = a login prompt or the tiny test OS
	Timeout    time.Duration  // of the whole run; 0 = 30 min
	Report     string         // file for the report, "" = none
	CheckDisks bool           // compare every disk with the image file before its first own boot

	StateDir string // of the server; "" = temporary. Needed with Image
	BootDir  string // as scripts/bootfiles.sh and make initramfs fill it; "" = build/boot
	Binary   string // the labswarm program; "" = this very program
	UI       string // UINone (default) or UIConsole
	Out      io.Writer
	// Stagger is the pause between two power-ons; 0 = 1 s. All terminals share
	// this machine's processors, so starting them at once gains nothing.
	Stagger time.Duration

	// OnJob, when set, is called after each look at the job (about once a second),
	// one call at a time. An error ends the run. Tests cut the power here.
	OnJob func(ctx context.Context, s *Session, job api.Job) error
	// Tune, when set, may change the machine of terminal i (from 0) before it is
	// made; its disk exists already.
	Tune func(i int, c *testvm.Config) error
}

// OptionError is wrong use: options that contradict each other or make no sense.
type OptionError struct{ Err error }

// Error lists every option at fault.
func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *OptionError) Unwrap() error { return e.Err }

// defaults fills in zero values and checks the rest, naming every flag at fault.
func (o *Options) defaults() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case o.Image == "" && o.ImageFile == "":
		bad("name an image: --image NAME or --image-file FILE")
	case o.Image != "" && o.ImageFile != "":
		bad("--image and --image-file exclude each other")
	case o.Image != "" && o.StateDir == "":
		bad("--image %s needs --state-dir, the folder whose store holds it", o.Image)
	}
	if o.ImageFile != "" {
		if st, err := os.Stat(o.ImageFile); err != nil {
			bad("--image-file: %w", err)
		} else if !st.Mode().IsRegular() {
			bad("--image-file %s: not a regular file", o.ImageFile)
		}
		if o.ImageName == "" {
			o.ImageName = imageName(o.ImageFile)
		}
	}
	if o.Terminals == 0 {
		o.Terminals = 3
	}
	if o.Terminals < 1 || o.Terminals > 64 {
		bad("--terminals %d: 1 to 64", o.Terminals)
	}
	if len(o.Firmware) == 0 {
		o.Firmware = []testvm.Firmware{testvm.BIOS, testvm.UEFI, testvm.SecureBoot}
	}
	if o.DiskBytes == 0 {
		o.DiskBytes = 8 << 30
	}
	if o.DiskBytes < 1<<20 || o.DiskBytes%512 != 0 {
		bad("--disk-size: %d bytes; want a multiple of 512 of at least 1 MiB", o.DiskBytes)
	}
	if o.DiskBus == "" {
		o.DiskBus = testvm.Virtio
	}
	if _, err := testvm.ParseBus(string(o.DiskBus)); err != nil {
		bad("--disk-bus: %w", err)
	}
	if o.DHCP == "" {
		o.DHCP = DHCPProxy
	}
	if o.DHCP != DHCPProxy && o.DHCP != DHCPOwn {
		bad("--dhcp %q: proxy or dhcp", o.DHCP)
	}
	if o.UI == "" {
		o.UI = UINone
	}
	if o.UI != UINone && o.UI != UIConsole {
		bad("--ui %q: console or none", o.UI)
	}
	if o.CheckDisks && o.ImageFile == "" {
		bad("--check-disks needs --image-file: the disks are compared with that file, not with the store")
	}
	if err := errors.Join(errs...); err != nil {
		return &OptionError{err}
	}
	return o.defaults2()
}

// defaults2 resolves paths and the values that rarely change.
func (o *Options) defaults2() error {
	if o.Expect == nil {
		o.Expect = regexp.MustCompile(`LABSWARM-BOOTED|login:`)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Minute
	}
	if o.Stagger == 0 {
		o.Stagger = time.Second
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.BootDir == "" {
		o.BootDir = filepath.Join("build", "boot")
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the labswarm program: %w", err)
		}
		o.Binary = self
	}
	var err error
	for _, p := range []*string{&o.Binary, &o.BootDir, &o.ImageFile, &o.StateDir, &o.KeepDisks, &o.Report} {
		if *p == "" {
			continue
		}
		// Children run in other folders.
		if *p, err = filepath.Abs(*p); err != nil {
			return fmt.Errorf("find %q: %w", *p, err)
		}
	}
	return nil
}

// imageName makes a store name of a file name: lower-case letters, digits, hyphens.
func imageName(file string) string {
	base := strings.ToLower(filepath.Base(file))
	base, _, _ = strings.Cut(base, ".")
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(base, "-"), "-")
	if name == "" {
		return "image"
	}
	return name
}

// ParseFirmwares reads "bios,uefi,secureboot".
func ParseFirmwares(list string) ([]testvm.Firmware, error) {
	var out []testvm.Firmware
	for s := range strings.SplitSeq(list, ",") {
		f, err := testvm.ParseFirmware(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// validMAC guards what is put on command lines.
func validMAC(s string) bool {
	_, err := net.ParseMAC(s)
	return err == nil
}
