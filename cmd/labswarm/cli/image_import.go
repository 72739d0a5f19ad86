package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/images/unpack"
	"labswarm/internal/units"
)

// importFlags are the options of image import as they were typed.
type importFlags struct {
	cell, maxSize, hint, codec string
	fromKey, hooks             string
	force                      []string
	dryRun, wrap               bool
}

func newImport(e *env) *cobra.Command {
	f := &importFlags{}
	cmd := &cobra.Command{
		Use: "import NAME FILE", Short: "make a new version of an image from a disk", Args: exact(2),
		Long: `Import reads a whole disk (never written), finds what its filesystems use, cuts that
into cells and signs the result. FILE is recognised by its content, not by its name:

  raw                          a file or a block device
  gzip, bzip2, xz, zstd        of raw
  qcow2, VMDK, VHD, VHDX, VDI  needs qemu-img (package qemu-utils)
  a Clonezilla folder          from savedisk; needs partclone
  labswarm image export        of this server or another; of another's it wants the fingerprint

All but raw and exports are unpacked into a work file in the image store first, which needs room for
what the disk holds. A disk with the content of the newest version makes no new one; when
that has no compressed cells they are added to it. On any error or Ctrl-C nothing is left
behind. Hooks of the newest version stay, unless --hooks says otherwise. --dry-run shows what would be made and writes nothing into the store.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.importImage(cmd.Context(), f, args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&f.cell, "cell", "", "cell size, 256KiB, 1MiB, 2MiB or 4MiB; a new image only; default: 256KiB up to 4 GiB of used bytes, then 1MiB or more")
	cmd.Flags().StringVar(&f.maxSize, "max-size", units.FormatBytes(unpack.DefaultMaxSize), "longest disk that is unpacked from another format")
	cmd.Flags().StringSliceVar(&f.force, "force", nil, "override a guard by its name; recorded in the image for ever")
	cmd.Flags().StringVar(&f.codec, "codec", library.CodecZstd, "zstd makes compressed cells beside the image, none does not")
	cmd.Flags().StringVar(&f.hint, "os", "", "free text for people")
	cmd.Flags().StringVar(&f.fromKey, "from-key", "", "fingerprint of the other server's key, when FILE is its image export")
	cmd.Flags().StringVar(&f.hooks, "hooks", "", "`FOLDER` with hooks.json and its files: what every PC gets beside its name; none = drop those of the newest version")
	cmd.Flags().BoolVar(&f.wrap, "wrap", false, "FILE is a single filesystem: put a partition table around it (nothing boots from that)")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would be made, with estimates; write nothing into the store")
	return cmd
}

// options turns the flags into those of the library.
func (f *importFlags) options(name, file string) (o library.ImportOptions, err error) {
	o = library.ImportOptions{Name: name, File: file, Force: f.force, Wrap: f.wrap, OSHint: f.hint, Codec: f.codec}
	if f.cell != "" {
		if o.Cell, err = units.ParseSize(f.cell); err != nil {
			return o, usage(fmt.Errorf("--cell: %w", err))
		}
	}
	if o.MaxSize, err = units.ParseSize(f.maxSize); err != nil || o.MaxSize <= 0 {
		return o, usage(fmt.Errorf("--max-size %q is no size such as 500GiB", f.maxSize))
	}
	if f.codec != library.CodecZstd && f.codec != library.CodecNone {
		return o, usage(fmt.Errorf("--codec %q is unknown; there are %s and %s", f.codec, library.CodecZstd, library.CodecNone))
	}
	if err := manifest.CheckName(name); err != nil {
		return o, usage(err)
	}
	switch f.hooks {
	case "":
	case "none":
		o.Hooks = library.NoHooks()
	default:
		if o.Hooks, err = library.LoadHooks(f.hooks); err != nil {
			return o, usage(err)
		}
	}
	return o, nil
}

func (e *env) importImage(ctx context.Context, f *importFlags, name, file string) error {
	o, err := f.options(name, file)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	switch export := library.IsExport(file); {
	case export && (f.dryRun || f.wrap):
		return usage(fmt.Errorf("import %q: an export is an image already, --dry-run and --wrap are for disks", file))
	case export:
		o.Warn = func(s string) { e.hint("labswarm: note: %s", s) }
		return e.importExport(ctx, o, f.fromKey)
	case f.fromKey != "":
		return usage(fmt.Errorf("--from-key: %q is no file of `labswarm image export`", file))
	}
	open := e.library
	if f.dryRun {
		open = e.browse // makes nothing
	}
	lib, err := open()
	if err != nil {
		return err
	}
	p := e.progress()
	o.Progress = func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) }
	o.Warn = func(s string) { e.hint("labswarm: note: %s", s) }
	if f.dryRun {
		pre, err := lib.Preview(ctx, o)
		p.end()
		if err != nil {
			return interrupted(ctx, file, err)
		}
		return e.preview(name, pre)
	}
	v, err := lib.Import(ctx, o)
	p.end()
	if err != nil {
		return interrupted(ctx, file, err)
	}
	return e.imported(v)
}

// interrupted says that a Ctrl-C, not the file, ended an import.
func interrupted(ctx context.Context, file string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("import %q: interrupted, nothing is left behind: %w", file, context.Cause(ctx))
	}
	return err
}

// preview prints what an import would make.
func (e *env) preview(name string, p *library.Preview) error {
	if e.json {
		return e.printJSON(struct {
			Name string `json:"name"`
			*library.Preview
		}{name, p})
	}
	about, sure := "about ", fmt.Sprintf("estimated from %d cells", p.Sampled)
	if p.Exact {
		about, sure = "", "all cells were read"
	}
	if err := e.printf("%s would be: disk %s, %s, %d-byte sectors, boots %s; smallest target %s\n", name,
		units.FormatBytes(p.DiskSize), p.Label, p.Sector, p.Boot, units.FormatBytes(p.MinSize)); err != nil {
		return err
	}
	for _, part := range p.Parts {
		if err := e.printf("  part %-3d %10s at %-12s %-9s %-12s used %s (map: %s)\n", part.N, units.FormatBytes(part.Size),
			units.FormatBytes(part.Start), part.FS, part.FSLabel, units.FormatBytes(part.UsedBytes), part.Map); err != nil {
			return err
		}
	}
	for _, w := range p.Warnings {
		e.hint("labswarm: note: %s", w)
	}
	return e.printf("  used %s; %s%d cells of %s to ship = %s, %s%s on the wire (%s)\n  one copy over a free 1 Gb/s link: %s%s\nnothing was written: this was a dry run\n",
		units.FormatBytes(p.UsedBytes), about, p.Cells, units.FormatBytes(p.Cell), units.FormatBytes(p.ShipBytes), about, units.FormatBytes(p.WireBytes), sure,
		about, units.FormatDuration(p.Time().Round(time.Second)))
}
