package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"labswarm/e2e/classroom"
	"labswarm/internal/units"
)

func newClassroom(e *env) *cobra.Command {
	var o classroom.Options
	var firmware, disk, expect string
	run := &cobra.Command{
		Use: "run (--image NAME | --image-file FILE)", Short: "reimage a room of virtual PCs, end to end", Args: exact(0),
		Long: `Run makes a network of its own (a namespace; nothing leaves it), starts the real
server in it, imports the image, creates a job, switches on virtual PCs under QEMU and
follows them until their own system has booted. Needs root. Everything it made is gone
afterwards, also after Ctrl-C. Exit code: 0 all PCs came through, 3 some, 1 none.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Firmware, err = classroom.ParseFirmwares(firmware); err != nil {
				return usage(fmt.Errorf("--firmware: %w", err))
			}
			if o.DiskBytes, err = units.ParseSize(disk); err != nil {
				return usage(fmt.Errorf("--disk-size: %w", err))
			}
			if expect != "" {
				if o.Expect, err = regexp.Compile(expect); err != nil {
					return usage(fmt.Errorf("--expect: %w", err))
				}
			}
			if cmd.Flags().Changed("state-dir") {
				o.StateDir = e.stateDir
			}
			o.Out = e.out
			if e.json {
				o.Out = e.err // the report alone goes to standard output
			}
			r, err := classroom.Run(cmd.Context(), o)
			var wrong *classroom.OptionError
			if errors.As(err, &wrong) {
				return usage(err)
			}
			if err != nil {
				if cmd.Context().Err() != nil {
					return &codeError{ExitInterrupted, fmt.Errorf("classroom: %w", context.Cause(cmd.Context()))}
				}
				return fmt.Errorf("the classroom did not come to its end: %w", err)
			}
			if e.json {
				if err := e.printJSON(r); err != nil {
					return err
				}
			}
			if code := r.ExitCode(); code != ExitOK {
				return &codeError{code: code}
			}
			return nil
		},
	}
	f := run.Flags()
	f.StringVar(&o.Image, "image", "", "image in the store of --state-dir")
	f.StringVar(&o.ImageFile, "image-file", "", "raw disk image, imported first")
	f.IntVar(&o.Terminals, "terminals", 3, "how many PCs")
	f.StringVar(&firmware, "firmware", "bios,uefi,secureboot", "dealt to the PCs in turn")
	f.StringVar(&disk, "disk-size", "8GiB", "disk of each PC")
	f.StringVar((*string)(&o.DiskBus), "disk-bus", "virtio", "virtio, sata or nvme")
	f.StringVar(&o.DHCP, "dhcp", "proxy", "proxy: dnsmasq plays the school's router; dhcp: labswarm gives the addresses")
	f.StringVar(&o.KeepDisks, "keep-disks", "", "folder for the PCs' disks; used again when they exist")
	f.StringVar(&expect, "expect", "", "regular expression on the serial console after the last reboot; {host} stands for the PC's name")
	f.DurationVar(&o.Timeout, "timeout", 0, "of the whole run; 0 = 30m")
	f.StringVar(&o.Report, "report", "", "file for the report (JSON)")
	f.StringVar(&o.BootDir, "boot-dir", "", "boot files; empty = build/boot")
	f.BoolVar(&o.CheckDisks, "check-disks", false, "compare every disk with the image file, independently of labswarm")
	f.StringVar(&o.UI, "ui", "none", "console or none")
	f.IntVar(&o.MemoryMiB, "memory", 0, "MiB of each PC; 0 = 512")
	return group("classroom", "the virtual classroom", run)
}
