package cli

import (
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
	c := group("image", "disk images", newImport(e), newCapture(e), newImageLs(e), newImageShow(e), newImageVerify(e), newImageDiff(e), newImageExport(e),
		newImageScrub(e), newImagePin(e, true), newImagePin(e, false), newImageRm(e), newImageGC(e))
	c.PersistentFlags().StringVar(&e.keepFree, "keep-free", os.Getenv("LABSWARM_KEEP_FREE"), keepFreeHelp)
	return c
}

// browse opens the image store for reading. It makes nothing, not even keys: a
// wrong --state-dir must not leave a trace.
func (e *env) browse() (*library.Library, error) {
	if e.remote.client != nil {
		return nil, e.onServerOnly("this command of the image store")
	}
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
	if e.remote.client != nil {
		return nil, e.onServerOnly("this command of the image store")
	}
	keys, err := config.LoadKeys(e.stateDir)
	if err != nil {
		return nil, err
	}
	lib, err := library.Open(filepath.Join(e.stateDir, "images"), keys.Image, []ed25519.PublicKey{keys.ImagePublic()})
	if err != nil || e.keepFree == "" {
		return lib, err
	}
	keep, err := units.ParseSize(e.keepFree)
	if err != nil {
		return nil, usage(fmt.Errorf("--keep-free: %w", err))
	}
	lib.KeepFree(keep)
	return lib, nil
}

func (e *env) imported(v *library.Version) (err error) {
	defer func() { err = errors.Join(err, v.Close()) }()
	m := v.Manifest()
	fresh := e.newCells(m)
	if e.json {
		out := versionJSON(v)
		if fresh >= 0 {
			out["new_cells"] = fresh
		}
		return e.printJSON(out)
	}
	on := ""
	switch {
	case fresh >= 0:
		on = fmt.Sprintf(", made on %s (%d of %d cells new)", m.Base, fresh, m.Pieces())
	case m.Base != "":
		on = ", made on " + m.Base
	}
	return e.printf("%s/%s: %d cells of %s to ship (%s), disk of %s, smallest target %s%s\n",
		v.Name(), v.Version(), m.Pieces(), units.FormatBytes(m.Cell), units.FormatBytes(int64(m.Pieces())*m.Cell),
		units.FormatBytes(m.Disk.Size), units.FormatBytes(m.Disk.MinSize), on)
}

// newCells counts what a new version has beside its base; -1: it has none, or none that can be read.
func (e *env) newCells(m *manifest.Manifest) int {
	if m.Base == "" {
		return -1
	}
	lib, err := e.library()
	if err != nil {
		return -1
	}
	base, err := lib.Get(m.Name, m.Base)
	if err != nil {
		return -1
	}
	defer func() { _ = base.Close() }() // only read
	return library.NewCells(m, base.Manifest())
}

// versionJSON is the stable JSON of one version.
func versionJSON(v *library.Version) map[string]any {
	m := v.Manifest()
	hash, digest := v.InfoHash(), v.Digest()
	return map[string]any{
		"name": v.Name(), "version": v.Version(), "base": m.Base, "cells": m.Pieces(), "cell": m.Cell,
		"bytes_shipped": int64(m.Pieces()) * m.Cell, "disk_size": m.Disk.Size, "min_size": m.Disk.MinSize,
		"label": m.Disk.Label, "boot": m.Boot, "parts": m.Parts, "forced": m.Forced,
		"infohash": fmt.Sprintf("%x", hash[:]), "manifest_digest": fmt.Sprintf("%x", digest[:]), "dir": v.Dir(),
		"codec": m.Codec, "hooks": m.Personalise.Hooks, "frame_bytes": v.FrameBytes(), "wire_bytes": v.WireBytes(),
	}
}

func newImageLs(e *env) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "list the images", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		lib, err := e.browse()
		if err != nil {
			return err
		}
		list, err := lib.List()
		if err != nil {
			return err
		}
		known := e.known(cmd.Context(), lib)
		if e.json {
			return e.printJSON(known.join(list))
		}
		if len(list) == 0 {
			e.hint("no images yet: labswarm image import NAME FILE")
			return nil
		}
		if err := e.printf("%-20s %-16s %-6s %-8s %10s %8s %10s %10s %10s %6s\n", "NAME", "VERSION", "TABLE", "BOOTS", "DISK", "CELLS", "TO SHIP", "ON WIRE", "TAKES", "NEEDED"); err != nil {
			return err
		}
		for _, i := range list {
			if err := e.lsLine(i, known); err != nil {
				return err
			}
		}
		return nil
	}}
}

func (e *env) lsLine(i library.VersionInfo, known knownImages) error {
	if i.Err != "" {
		return e.printf("%-20s %-16s DAMAGED: %s\n", i.Name, i.Version, i.Err)
	}
	mark, needed := "", "?"
	if i.Latest {
		mark = " *"
	}
	s, ok := known.states[i.Name+"/"+i.Version]
	if ok {
		needed = fmt.Sprintf("%d", len(s.Refs))
	}
	if err := e.printf("%-20s %-16s %-6s %-8s %10s %8d %10s %10s %10s %6s\n", i.Name, i.Version+mark, i.Label, i.Boot, units.FormatBytes(i.DiskSize),
		i.DataCells, units.FormatBytes(i.ShippedBytes), units.FormatBytes(i.WireBytes), units.FormatBytes(i.AllocatedBytes), needed); err != nil {
		return err
	}
	if i.FramesErr != "" {
		e.hint("%s/%s: its cells travel uncompressed: %s; `labswarm image verify --repair %s/%s` makes the compressed ones again", i.Name, i.Version, i.FramesErr, i.Name, i.Version)
	}
	if s.Quarantine != "" {
		return e.printf("%-20s IN QUARANTINE: %s\n", "", s.Quarantine)
	}
	return nil
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
	return &cobra.Command{Use: "show NAME[/VERSION]", Short: "what an image holds", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) (err error) {
		v, err := e.version(args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.Close()) }()
		lib, err := e.browse()
		if err != nil {
			return err
		}
		known := e.known(cmd.Context(), lib)
		takes, err := v.Allocated()
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(known.addTo(versionJSON(v), v, takes))
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
		for _, h := range m.Personalise.Hooks {
			if err := e.printf("  hook %-9s %s\n", h.Kind, strings.TrimSpace(h.File+" "+h.Path)); err != nil {
				return err
			}
		}
		for _, f := range m.Forced {
			if err := e.printf("  FORCED: %s\n", f); err != nil {
				return err
			}
		}
		return e.showKnown(known, v, takes)
	}}
}

func (e *env) imported2(v *library.Version) error {
	m := v.Manifest()
	hash := v.InfoHash()
	return e.printf("%s/%s  made %s\n  disk %s, %s, %d-byte sectors, boots %s; smallest target %s%s\n  %d cells of %s = %s to ship; infohash %x\n  %s\n",
		v.Name(), v.Version(), m.Created, units.FormatBytes(m.Disk.Size), m.Disk.Label, m.Disk.Sector, m.Boot,
		units.FormatBytes(m.Disk.MinSize), growText(m), m.Pieces(), units.FormatBytes(m.Cell), units.FormatBytes(int64(m.Pieces())*m.Cell), hash[:], frameLine(v))
}

// growText names the partition that takes the room of a bigger disk.
func growText(m *manifest.Manifest) string {
	for _, p := range m.Parts {
		if p.Grow {
			return fmt.Sprintf("; on a bigger one partition %d (%s) takes the rest", p.N, p.FS)
		}
	}
	return ""
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
