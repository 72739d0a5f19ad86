package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/images/library"
	"labswarm/internal/units"
	"labswarm/server/daemon"
)

const keepFreeHelp = "what stays free of the image store's disk, for example 2GiB; default: 5 % of it, or 10 GiB where that is at most a tenth (env LABSWARM_KEEP_FREE)"

// keeper knows who needs which version: the server, or its code in this process when none runs.
type keeper interface {
	ImageStates(ctx context.Context) ([]api.ImageState, error)
	ImageGarbage(ctx context.Context, keep int) ([]api.ImageGarbage, error)
	RemoveImage(ctx context.Context, req api.ImageRemove) error
	PinImage(ctx context.Context, req api.ImagePin) error
	CheckedImage(ctx context.Context, c api.ImageCheck) error
	HealImage(ctx context.Context, req api.ImageHeal) (api.ImageHealed, error)
}

// withKeeper calls fn with the server, or, when none runs, with the state file held. make: a missing state file may be made.
func (e *env) withKeeper(ctx context.Context, lib *library.Library, make bool, fn func(keeper) error) (err error) {
	c := e.client()
	defer c.Close()
	_, err = c.Server(ctx)
	var away *client.UnreachableError
	switch {
	case err == nil:
		return fn(c)
	case !errors.As(err, &away) || errors.Is(err, fs.ErrPermission):
		return err
	}
	k, done, err := daemon.OpenKeeper(ctx, e.stateDir, lib, make)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return fn(k)
}

// knownImages is what is known of versions besides their files, by name/version.
type knownImages struct {
	states map[string]api.ImageState
	err    string // why nothing is
}

// known never fails: the files can be shown without it.
func (e *env) known(ctx context.Context, lib *library.Library) knownImages {
	out := knownImages{states: map[string]api.ImageState{}}
	err := e.withKeeper(ctx, lib, false, func(k keeper) error {
		list, err := k.ImageStates(ctx)
		for _, s := range list {
			out.states[s.Name+"/"+s.Version] = s
		}
		return err
	})
	if err != nil {
		out.err = err.Error()
		e.hint("labswarm: note: nobody can tell who needs which image: %v", err)
	}
	return out
}

// listed is one line of `image ls --json`.
type listed struct {
	library.VersionInfo
	*api.ImageState
	Name    string `json:"name"`
	Version string `json:"version"`
}

func (k knownImages) join(list []library.VersionInfo) []listed {
	out := []listed{}
	for _, v := range list {
		l := listed{VersionInfo: v, Name: v.Name, Version: v.Version}
		if s, ok := k.states[v.Name+"/"+v.Version]; ok {
			l.ImageState = &s
		}
		out = append(out, l)
	}
	return out
}

// addTo adds to the JSON of one version. takes is in bytes.
func (k knownImages) addTo(m map[string]any, v *library.Version, takes int64) map[string]any {
	m["allocated_bytes"] = takes
	s, ok := k.states[v.Name()+"/"+v.Version()]
	if !ok {
		m["refs_error"] = k.err
		return m
	}
	m["refs"], m["pinned"], m["quarantine"], m["checked"], m["outcome"] = s.Refs, s.Pinned, s.Quarantine, s.Checked, s.Outcome
	m["bad_cells"], m["healing"] = append([]int64{}, s.Bad...), s.Healing
	return m
}

// showKnown prints the last lines of `image show`.
func (e *env) showKnown(k knownImages, v *library.Version, takes int64) error {
	base := "made on no other version"
	if b := v.Manifest().Base; b != "" {
		base = "made on " + b
	}
	if err := e.printf("  %s; takes %s of the server's disk\n", base, units.FormatBytes(takes)); err != nil {
		return err
	}
	s, ok := k.states[v.Name()+"/"+v.Version()]
	if !ok {
		return nil
	}
	for _, r := range s.Refs {
		if err := e.printf("  needed: %s\n", r); err != nil {
			return err
		}
	}
	if len(s.Refs) == 0 {
		if err := e.printf("  needed by nobody\n"); err != nil {
			return err
		}
	}
	if s.Quarantine != "" {
		if err := e.printf("  IN QUARANTINE, no new job may use it: %s\n", s.Quarantine); err != nil {
			return err
		}
		if s.Healing != "" {
			if err := e.printf("  last repair: %s\n", s.Healing); err != nil {
				return err
			}
		}
	}
	if s.Checked.IsZero() {
		return e.printf("  not scrubbed yet\n")
	}
	return e.printf("  scrubbed %s: %s\n", s.Checked.Local().Format(time.DateTime), s.Outcome)
}

// oneVersion splits NAME/VERSION.
func oneVersion(command, arg string) (name, version string, err error) {
	name, version, ok := strings.Cut(arg, "/")
	if !ok {
		return "", "", usage(fmt.Errorf("image %s takes NAME/VERSION: one version, never a whole image", command))
	}
	return name, version, nil
}

func newImageRm(e *env) *cobra.Command {
	var confirm string
	force := false
	cmd := &cobra.Command{
		Use: "rm NAME/VERSION", Short: "remove one version of an image", Args: exact(1),
		Long: `Rm refuses a version that somebody needs, and says who: a job that has not ended, a relay
that fetches it, a pin. It refuses the newest version of a name, and what a room was given
last and before that, unless --force is given.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, err := oneVersion("rm", args[0])
			if err != nil {
				return err
			}
			if confirm != args[0] {
				return usage(fmt.Errorf("this removes %s for good: repeat it as --confirm %s", args[0], args[0]))
			}
			lib, err := e.browse()
			if err != nil {
				return err
			}
			err = e.withKeeper(cmd.Context(), lib, false, func(k keeper) error {
				return k.RemoveImage(cmd.Context(), api.ImageRemove{Name: name, Version: version, Force: force})
			})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"name": name, "version": version, "removed": true})
			}
			return e.printf("%s is removed\n", args[0])
		}}
	cmd.Flags().StringVar(&confirm, "confirm", "", "NAME/VERSION once more")
	cmd.Flags().BoolVar(&force, "force", false, "although it is the newest, or a room was given it")
	return cmd
}

func newImageGC(e *env) *cobra.Command {
	keep, dry := 2, false
	cmd := &cobra.Command{
		Use: "gc", Short: "remove the versions that nobody needs", Args: exact(0),
		Long: `Gc removes every version that no job, room, relay or pin needs, but for the newest --keep of
each name that can be used. A version that is damaged or in quarantine is left for people.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lib, err := e.browse()
			if err != nil {
				return err
			}
			return e.withKeeper(cmd.Context(), lib, false, func(k keeper) error { return e.gc(cmd.Context(), k, keep, dry) })
		}}
	cmd.Flags().IntVar(&keep, "keep", keep, "versions of each name to keep at least")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would go, and remove nothing")
	return cmd
}

func (e *env) gc(ctx context.Context, k keeper, keep int, dry bool) error {
	list, err := k.ImageGarbage(ctx, keep)
	if err != nil {
		return err
	}
	word := "removed"
	if dry {
		word = "would go"
	}
	done, failed, bytes := []api.ImageGarbage{}, error(nil), int64(0)
	for _, g := range list {
		if !dry {
			if err := k.RemoveImage(ctx, api.ImageRemove{Name: g.Name, Version: g.Version}); err != nil {
				failed = errors.Join(failed, err) // somebody needs it by now; the others can go all the same
				continue
			}
		}
		done, bytes = append(done, g), bytes+g.Bytes
		if !e.json {
			if err := e.printf("%s/%s %s (%s)\n", g.Name, g.Version, word, units.FormatBytes(g.Bytes)); err != nil {
				return err
			}
		}
	}
	if e.json {
		return errors.Join(failed, e.printJSON(map[string]any{"dry_run": dry, "removed": done, "allocated_bytes": bytes}))
	}
	if len(list) == 0 {
		e.hint("nothing to remove: every version is needed, or among the newest %d of its name", keep)
	}
	return failed
}

func newImagePin(e *env, pin bool) *cobra.Command {
	use, short := "pin", "keep a version: neither gc nor rm removes it"
	if !pin {
		use, short = "unpin", "end what pin began"
	}
	return &cobra.Command{Use: use + " NAME/VERSION", Short: short, Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		name, version, err := oneVersion(use, args[0])
		if err != nil {
			return err
		}
		lib, err := e.browse()
		if err != nil {
			return err
		}
		_, err = os.Stat(filepath.Join(e.stateDir, "images"))
		err = e.withKeeper(cmd.Context(), lib, err == nil, func(k keeper) error {
			return k.PinImage(cmd.Context(), api.ImagePin{Name: name, Version: version, Pinned: pin})
		})
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(map[string]any{"name": name, "version": version, "pinned": pin})
		}
		return e.printf("%s is %sned\n", args[0], use)
	}}
}
