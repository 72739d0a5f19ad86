package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"labswarm/images/library"
	"labswarm/images/manifest"
	"labswarm/internal/units"
	"labswarm/server/config"
)

func newImage(e *env) *cobra.Command {
	return group("image", "disk images", newImport(e), newCapture(e), newImageLs(e), newImageShow(e), newImageVerify(e), newImageRm(e))
}

// browse opens the image store for reading. It makes nothing, not even keys: a
// wrong --state-dir must not leave a trace.
func (e *env) browse() (*library.Library, error) {
	_, err := os.Stat(filepath.Join(e.stateDir, "keys", "image.key"))
	if errors.Is(err, fs.ErrNotExist) {
		return library.Open(filepath.Join(e.stateDir, "images"), nil, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return e.library()
}

// library opens the image store of the state folder, and makes it, with the
// site's keys, when there is none.
func (e *env) library() (*library.Library, error) {
	keys, err := config.LoadKeys(e.stateDir)
	if err != nil {
		return nil, err
	}
	return library.Open(filepath.Join(e.stateDir, "images"), keys.Image, []ed25519.PublicKey{keys.ImagePublic()})
}

func newImport(e *env) *cobra.Command {
	var cell string
	var force []string
	var hint, codec string
	cmd := &cobra.Command{
		Use: "import NAME FILE", Short: "make a new version of an image from a raw disk", Args: exact(2),
		Long: `Import reads a raw image of a whole disk (a file or a block device, never written),
finds what its filesystems use, cuts that into cells and signs the result. A disk with
the content of the newest version makes no new one; when that has no compressed cells
they are added to it. On any error or Ctrl-C nothing is left behind.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var size int64
			if cell != "" {
				var err error
				if size, err = units.ParseSize(cell); err != nil {
					return usage(fmt.Errorf("--cell: %w", err))
				}
			}
			if codec != library.CodecZstd && codec != library.CodecNone {
				return usage(fmt.Errorf("--codec %q is unknown; there are %s and %s", codec, library.CodecZstd, library.CodecNone))
			}
			if err := manifest.CheckName(args[0]); err != nil {
				return usage(err)
			}
			if _, err := os.Stat(args[1]); err != nil {
				return fmt.Errorf("import image %s: %w", args[0], err)
			}
			lib, err := e.library()
			if err != nil {
				return err
			}
			p := e.progress()
			v, err := lib.Import(cmd.Context(), library.ImportOptions{
				Name: args[0], File: args[1], Cell: size, Force: force, OSHint: hint, Codec: codec,
				Progress: func(l library.Progress) { p.update(l.Phase, l.Done, l.Total, l.Rate) },
				Warn:     func(s string) { e.hint("labswarm: note: %s", s) },
			})
			p.end()
			if err != nil {
				if cmd.Context().Err() != nil {
					return fmt.Errorf("import %q: interrupted, nothing is left behind: %w", args[1], context.Cause(cmd.Context()))
				}
				return err
			}
			return e.imported(v)
		},
	}
	cmd.Flags().StringVar(&cell, "cell", "", "cell size, for example 1MiB; a new image only")
	cmd.Flags().StringSliceVar(&force, "force", nil, "override a guard by its name; recorded in the image for ever")
	cmd.Flags().StringVar(&codec, "codec", library.CodecZstd, "zstd makes compressed cells beside the image, none does not")
	cmd.Flags().StringVar(&hint, "os", "", "free text for people")
	return cmd
}

func (e *env) imported(v *library.Version) (err error) {
	defer func() { err = errors.Join(err, v.Close()) }()
	m := v.Manifest()
	if e.json {
		return e.printJSON(versionJSON(v))
	}
	return e.printf("%s/%s: %d cells of %s to ship (%s), disk of %s, smallest target %s\n",
		v.Name(), v.Version(), m.Pieces(), units.FormatBytes(m.Cell), units.FormatBytes(int64(m.Pieces())*m.Cell),
		units.FormatBytes(m.Disk.Size), units.FormatBytes(m.Disk.MinSize))
}

// versionJSON is the stable JSON of one version.
func versionJSON(v *library.Version) map[string]any {
	m := v.Manifest()
	hash, digest := v.InfoHash(), v.Digest()
	return map[string]any{
		"name": v.Name(), "version": v.Version(), "cells": m.Pieces(), "cell": m.Cell,
		"bytes_shipped": int64(m.Pieces()) * m.Cell, "disk_size": m.Disk.Size, "min_size": m.Disk.MinSize,
		"label": m.Disk.Label, "boot": m.Boot, "parts": m.Parts, "forced": m.Forced,
		"infohash": fmt.Sprintf("%x", hash[:]), "manifest_digest": fmt.Sprintf("%x", digest[:]), "dir": v.Dir(),
		"codec": m.Codec, "frame_bytes": v.FrameBytes(), "wire_bytes": v.WireBytes(),
	}
}

func newImageLs(e *env) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "list the images", Args: exact(0), RunE: func(_ *cobra.Command, _ []string) error {
		lib, err := e.browse()
		if err != nil {
			return err
		}
		list, err := lib.List()
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		if len(list) == 0 {
			e.hint("no images yet: labswarm image import NAME FILE")
			return nil
		}
		if err := e.printf("%-20s %-16s %-6s %-8s %10s %8s %10s %10s\n", "NAME", "VERSION", "TABLE", "BOOTS", "DISK", "CELLS", "TO SHIP", "ON WIRE"); err != nil {
			return err
		}
		for _, i := range list {
			if i.Err != "" {
				if err := e.printf("%-20s %-16s DAMAGED: %s\n", i.Name, i.Version, i.Err); err != nil {
					return err
				}
				continue
			}
			mark := ""
			if i.Latest {
				mark = " *"
			}
			if err := e.printf("%-20s %-16s %-6s %-8s %10s %8d %10s %10s\n", i.Name, i.Version+mark, i.Label, i.Boot,
				units.FormatBytes(i.DiskSize), i.DataCells, units.FormatBytes(i.ShippedBytes), units.FormatBytes(i.WireBytes)); err != nil {
				return err
			}
			if i.FramesErr != "" {
				e.hint("%s/%s: its cells travel uncompressed: %s; `labswarm image verify --repair %s/%s` makes the compressed ones again", i.Name, i.Version, i.FramesErr, i.Name, i.Version)
			}
		}
		return nil
	}}
}

// version opens NAME or NAME/VERSION.
func (e *env) version(arg string) (*library.Version, error) {
	lib, err := e.browse()
	if err != nil {
		return nil, err
	}
	name, version, _ := strings.Cut(arg, "/")
	return lib.Get(name, version)
}

func newImageShow(e *env) *cobra.Command {
	return &cobra.Command{Use: "show NAME[/VERSION]", Short: "what an image holds", Args: exact(1), RunE: func(_ *cobra.Command, args []string) (err error) {
		v, err := e.version(args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.Close()) }()
		if e.json {
			return e.printJSON(versionJSON(v))
		}
		m := v.Manifest()
		if err := e.imported2(v); err != nil {
			return err
		}
		for _, p := range m.Parts {
			clean := ""
			if !p.Clean {
				clean = ", NOT CLEAN"
			}
			if err := e.printf("  part %-3d %10s at %-12s %-9s %-12s used %s (map: %s%s)\n", p.N, units.FormatBytes(p.Size),
				units.FormatBytes(p.Start), p.FS, p.FSLabel, units.FormatBytes(p.UsedBytes), p.Map, clean); err != nil {
				return err
			}
		}
		for _, f := range m.Forced {
			if err := e.printf("  FORCED: %s\n", f); err != nil {
				return err
			}
		}
		return nil
	}}
}

func (e *env) imported2(v *library.Version) error {
	m := v.Manifest()
	hash := v.InfoHash()
	return e.printf("%s/%s  made %s\n  disk %s, %s, %d-byte sectors, boots %s; smallest target %s\n  %d cells of %s = %s to ship; infohash %x\n  %s\n",
		v.Name(), v.Version(), m.Created, units.FormatBytes(m.Disk.Size), m.Disk.Label, m.Disk.Sector, m.Boot,
		units.FormatBytes(m.Disk.MinSize), m.Pieces(), units.FormatBytes(m.Cell), units.FormatBytes(int64(m.Pieces())*m.Cell), hash[:], frameLine(v))
}

// frameLine says in which form an image travels.
func frameLine(v *library.Version) string {
	switch ship := v.Manifest().ShippedBytes(); {
	case v.FramesErr() != nil:
		return fmt.Sprintf("travels uncompressed: %v; `labswarm image verify --repair %s/%s` makes the compressed cells again", v.FramesErr(), v.Name(), v.Version())
	case !v.HasFrames():
		return "travels uncompressed; `labswarm image import` of the same disk adds compressed cells"
	default:
		return fmt.Sprintf("travels compressed: %s on the wire (%.2f of it)", units.FormatBytes(v.WireBytes()), float64(v.WireBytes())/float64(max(ship, 1)))
	}
}

func newImageRm(e *env) *cobra.Command {
	var confirm string
	cmd := &cobra.Command{Use: "rm NAME/VERSION", Short: "remove one version of an image", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		name, version, ok := strings.Cut(args[0], "/")
		if !ok {
			return usage(errors.New("image rm takes NAME/VERSION: one version, never a whole image"))
		}
		if confirm != args[0] {
			return usage(fmt.Errorf("this removes %s for good: repeat it as --confirm %s", args[0], args[0]))
		}
		c := e.client()
		defer c.Close()
		if jobs, err := c.Jobs(cmd.Context()); err == nil {
			for _, j := range jobs {
				if j.Result == "" && j.Image == name && j.Version == version {
					return &codeError{ExitConflict, fmt.Errorf("remove %s: job %d is deploying it", args[0], j.ID)}
				}
			}
		}
		lib, err := e.library()
		if err != nil {
			return err
		}
		if err := lib.Remove(name, version); err != nil {
			return err
		}
		return e.printf("%s is removed\n", args[0])
	}}
	cmd.Flags().StringVar(&confirm, "confirm", "", "NAME/VERSION once more")
	return cmd
}
