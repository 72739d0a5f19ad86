package personalise

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"labswarm/images/manifest"
	"labswarm/initramfs-agent/volume"
)

// Hook is a hook of the signed manifest with its content, which was compared with its digest.
type Hook struct {
	manifest.Hook
	Content []byte
}

// Where the scripts of firstboot hooks lie, and what starts them. All of it is in /etc, which is always on the root
// filesystem.
const (
	bootFolder  = "etc/labswarm/firstboot.d"
	bootPending = "etc/labswarm/firstboot.pending"
	bootUnit    = "etc/systemd/system/labswarm-firstboot.service"
	bootWants   = "etc/systemd/system/multi-user.target.wants"
)

// Hooks adds the hooks of an image to a plan, in their order. What a hook says of a path counts more than what stands in
// the plan already.
func Hooks(p *Plan, r Root, h Host, hooks []Hook) error {
	if len(hooks) == 0 {
		return nil
	}
	mounts, err := mountPoints(r)
	if err != nil {
		return err
	}
	var scripts []string
	for i, k := range hooks {
		var err error
		switch k.Kind {
		case manifest.HookFile:
			err = hookFile(p, r, h, k, mounts)
		case manifest.HookRemove:
			err = hookRemove(p, r, k, mounts)
		case manifest.HookFirstBoot:
			name := fmt.Sprintf("%s/%02d-%s", bootFolder, i+1, k.File)
			scripts = append(scripts, name)
			if err = p.folders(r, bootFolder); err == nil {
				p.set(Change{Path: name, Content: fill(k, h), Meta: volume.Meta{Mode: 0o700}, Exact: true})
			}
		default:
			err = fmt.Errorf("kind %q is unknown", k.Kind)
		}
		if err != nil {
			return fmt.Errorf("hook %d (%s %s): %w", i+1, k.Kind, strings.TrimSpace(k.File+" "+k.Path), err)
		}
	}
	if len(scripts) == 0 {
		return nil
	}
	return firstBoot(p, r, scripts)
}

func hookFile(p *Plan, r Root, h Host, k Hook, mounts []string) error {
	at, kind, _, err := resolve(r, strings.TrimPrefix(k.Path, "/"))
	if err != nil {
		return err
	}
	if kind != volume.File && kind != volume.Nothing {
		return fmt.Errorf("/%s is there and no file", at)
	}
	if m := mounted(mounts, at); m != "" {
		return fmt.Errorf("/%s lies on %s, a filesystem of its own: hooks change the root filesystem only", at, m)
	}
	mode, err := strconv.ParseUint(k.Mode, 8, 12)
	if err != nil {
		return fmt.Errorf("mode %q: %w", k.Mode, err)
	}
	if err := p.folders(r, path.Dir(at)); err != nil {
		return err
	}
	p.set(Change{Path: at, Content: fill(k, h), Meta: volume.Meta{Mode: uint32(mode), UID: k.UID, GID: k.GID}, Exact: true})
	return nil
}

// hookRemove removes a file, or a link and not what it leads to.
func hookRemove(p *Plan, r Root, k Hook, mounts []string) error {
	at := strings.TrimPrefix(k.Path, "/")
	kind, _, err := r.Lstat(at)
	if err != nil {
		return err
	}
	if kind == volume.Dir {
		return fmt.Errorf("/%s is a folder: only files and links are removed", at)
	}
	if m := mounted(mounts, at); m != "" {
		return fmt.Errorf("/%s lies on %s, a filesystem of its own: hooks change the root filesystem only", at, m)
	}
	p.drop(at)
	if kind != volume.Nothing {
		p.remove(at)
	}
	return nil
}

// firstBoot makes a unit that runs the scripts one after the other, each time until all have succeeded once.
func firstBoot(p *Plan, r Root, scripts []string) error {
	found := false
	for _, s := range []string{"usr/lib/systemd/systemd", "lib/systemd/systemd"} {
		k, _, err := r.Lstat(s)
		if err != nil {
			return err
		}
		found = found || k == volume.File || k == volume.Link
	}
	if !found {
		return fmt.Errorf("this system has no systemd, which firstboot hooks (%d) need", len(scripts))
	}
	var unit strings.Builder
	unit.WriteString("# Made by labswarm: the hooks of this PC's image.\n[Unit]\nDescription=First start of this copy (labswarm)\n" +
		"ConditionPathExists=/" + bootPending + "\nWants=network-online.target\nAfter=network-online.target local-fs.target\n\n[Service]\nType=oneshot\n")
	for _, s := range scripts {
		unit.WriteString("ExecStart=/" + s + "\n")
	}
	unit.WriteString("ExecStartPost=/bin/rm -f /" + bootPending + "\n\n[Install]\nWantedBy=multi-user.target\n")
	for _, dir := range []string{path.Dir(bootPending), path.Dir(bootUnit), bootWants} {
		if err := p.folders(r, dir); err != nil {
			return err
		}
	}
	p.set(Change{Path: bootUnit, Content: []byte(unit.String()), Meta: plainFile, Exact: true})
	p.set(Change{Path: path.Join(bootWants, path.Base(bootUnit)), Link: "/" + bootUnit})
	p.set(Change{Path: bootPending, Meta: plainFile, Exact: true})
	return nil
}

// fill puts the PC's own fields into a hook's content, escaped for what it is.
func fill(k Hook, h Host) []byte {
	if k.Fields == "" {
		return k.Content
	}
	values := map[string]string{"host": h.Name, "room": h.Room, "image": h.Image, "job": strconv.FormatUint(h.Job, 10)}
	if h.Network != nil {
		values["address"] = h.Network.Address
	}
	return manifest.FillFields(k.Content, func(name string) string { return escape(k.Fields, values[name]) })
}

func escape(format, s string) string {
	switch format {
	case "shell": // one word, whatever is in it
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	case "json": // the inside of a string
		b, err := json.Marshal(s)
		if err != nil {
			return ""
		}
		return string(b[1 : len(b)-1])
	case "xml":
		var b bytes.Buffer
		if err := xml.EscapeText(&b, []byte(s)); err != nil {
			return ""
		}
		return b.String()
	}
	return s
}

// mountPoints are the filesystems that the system mounts over its root, by fstab(5).
func mountPoints(r Root) ([]string, error) {
	k, _, err := r.Lstat("etc/fstab")
	if err != nil || k != volume.File {
		return nil, err
	}
	b, err := r.ReadFile("etc/fstab")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") || !path.IsAbs(f[1]) {
			continue
		}
		if at := path.Clean(f[1]); at != "/" {
			out = append(out, at)
		}
	}
	return out, nil
}

// mounted returns the mount point that hides a path of the root filesystem; "" when none does.
func mounted(mounts []string, at string) string {
	for _, m := range mounts {
		if "/"+at == m || strings.HasPrefix("/"+at, m+"/") {
			return m
		}
	}
	return ""
}

// drop forgets what was to become of a path.
func (p *Plan) drop(at string) {
	p.Changes = slices.DeleteFunc(p.Changes, func(c Change) bool { return c.Path == at && !c.Folder })
}

// set says what becomes of a path, in place of what was said before.
func (p *Plan) set(c Change) {
	p.drop(c.Path)
	p.Changes = append(p.Changes, c)
}

// folders makes a folder and those above it where they are missing.
func (p *Plan) folders(r Root, dir string) error {
	if dir == "." || slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Folder && c.Path == dir }) {
		return nil
	}
	k, _, err := r.Lstat(dir)
	switch {
	case err != nil:
		return err
	case k == volume.Dir, k == volume.Link:
		return nil // a link that leads to no folder fails when the file is made
	case k != volume.Nothing:
		return fmt.Errorf("/%s is there and no folder", dir)
	}
	if err := p.folders(r, path.Dir(dir)); err != nil {
		return err
	}
	p.Changes = append(p.Changes, Change{Path: dir, Folder: true, Meta: volume.Meta{Mode: 0o755}})
	return nil
}
