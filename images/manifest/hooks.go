package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Kinds of hooks.
const (
	HookFile      = "file"      // a file that every PC gets
	HookRemove    = "remove"    // a file that no PC keeps
	HookFirstBoot = "firstboot" // a script that each PC runs once, at its first start
)

// Limits of hooks. Their bytes lie in hooks.bin, one behind the other.
const (
	MaxHooks     = 64
	MaxHook      = 256 << 10 // bytes of one file
	MaxHookBytes = 2 << 20   // bytes of hooks.bin
	maxHookPath  = 1024      // bytes
)

// Personalise holds what is changed on each host after the copy, beside its name and keys.
type Personalise struct {
	Hooks []Hook `json:"hooks,omitempty"`
}

// Hook is one change. Its bytes are pinned by SHA256; a terminal does nothing with others.
type Hook struct {
	Kind   string `json:"kind"`
	File   string `json:"file,omitempty"`   // name of the source, for people; not of remove
	SHA256 string `json:"sha256,omitempty"` // 64 hex digits; not of remove
	Len    int64  `json:"len,omitempty"`    // bytes in hooks.bin
	Path   string `json:"path,omitempty"`   // absolute, on the system's root filesystem; not of firstboot
	Mode   string `json:"mode,omitempty"`   // four octal digits; of file
	UID    int    `json:"uid,omitempty"`    // owner; of file
	GID    int    `json:"gid,omitempty"`
	Fields string `json:"fields,omitempty"` // "" = bytes as they are; plain, shell, json, xml: {{host}} and the like are filled in
}

var (
	hookFileRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	hookModeRE = regexp.MustCompile(`^0[0-7]{3}$`) // no setuid, setgid, sticky
	fieldRE    = regexp.MustCompile(`\{\{[^{}]*\}\}`)
	fieldNames = []string{"{{host}}", "{{room}}", "{{image}}", "{{job}}", "{{address}}"}
)

// Check returns an error that says what is wrong with a hook, without its content.
func (h *Hook) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("hook of kind %.20q: %s", h.Kind, fmt.Sprintf(format, args...))
	}
	if !slices.Contains([]string{HookFile, HookRemove, HookFirstBoot}, h.Kind) {
		return bad("there are only file, remove and firstboot")
	}
	if (h.Kind == HookFirstBoot) != (h.Path == "") {
		return bad("path %.80q: file and remove have one, firstboot has none", h.Path)
	}
	if h.Path != "" {
		if err := checkHookPath(h.Path); err != nil {
			return bad("%v", err)
		}
	}
	if h.Kind == HookRemove {
		if *h != (Hook{Kind: HookRemove, Path: h.Path}) {
			return bad("it has nothing but a path")
		}
		return nil
	}
	switch {
	case !hookFileRE.MatchString(h.File):
		return bad("file name %.80q: use 1 to 64 letters, digits, '.', '_' and '-', not beginning with a sign", h.File)
	case !isHex(h.SHA256, 64):
		return bad("%s: malformed sha256", h.File)
	case h.Len < 0 || h.Len > MaxHook:
		return bad("%s has %d bytes; %d are allowed", h.File, h.Len, MaxHook)
	case !slices.Contains([]string{"", "plain", "shell", "json", "xml"}, h.Fields):
		return bad("%s: fields %.20q: there are plain, shell, json and xml", h.File, h.Fields)
	case h.Kind == HookFile && !hookModeRE.MatchString(h.Mode):
		return bad("%s: mode %.20q: want four octal digits from 0000 to 0777", h.File, h.Mode)
	case h.Kind == HookFirstBoot && (h.Mode != "" || h.UID != 0 || h.GID != 0):
		return bad("%s: it has no mode and owner: root alone can read it", h.File)
	case h.UID < 0 || h.UID > 1<<31-1 || h.GID < 0 || h.GID > 1<<31-1:
		return bad("%s: owner %d:%d", h.File, h.UID, h.GID)
	}
	return nil
}

// checkHookPath wants one spelling of a path: what is signed is what is written.
func checkHookPath(p string) error {
	switch {
	case !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("path %.80q has control characters", p)
	case len(p) > maxHookPath || !path.IsAbs(p) || path.Clean(p) != p || p == "/":
		return fmt.Errorf("path %.80q: want an absolute one without '..', '//' and a '/' at its end, of at most %d bytes", p, maxHookPath)
	}
	for part := range strings.SplitSeq(p[1:], "/") {
		if len(part) > 255 {
			return fmt.Errorf("path %.80q has a name of more than 255 bytes", p)
		}
	}
	return nil
}

// CheckContent checks the bytes of a hook: that they are the pinned ones, that all fields are known, that a script is one.
func (h *Hook) CheckContent(content []byte) error {
	sum := sha256.Sum256(content)
	switch {
	case int64(len(content)) != h.Len || hex.EncodeToString(sum[:]) != h.SHA256:
		return fmt.Errorf("hook %s does not match the digest in the signed manifest", h.File)
	case h.Kind == HookFirstBoot && !strings.HasPrefix(string(content), "#!/"):
		return fmt.Errorf("hook %s: a firstboot script begins with #!/ and its interpreter", h.File)
	}
	if h.Fields == "" {
		return nil
	}
	if !utf8.Valid(content) {
		return fmt.Errorf("hook %s is no UTF-8 text: its fields cannot be filled in", h.File)
	}
	for _, f := range fieldRE.FindAllString(string(content), -1) {
		if !slices.Contains(fieldNames, f) {
			return fmt.Errorf("hook %s: %.40s is unknown; there are %s", h.File, f, strings.Join(fieldNames, " "))
		}
	}
	return nil
}

// FillFields replaces each field of a content that CheckContent took by what value says of its name.
func FillFields(content []byte, value func(name string) string) []byte {
	return fieldRE.ReplaceAllFunc(content, func(f []byte) []byte { return []byte(value(string(f[2 : len(f)-2]))) })
}

// check checks all hooks, and that an image with hooks has a system that they can work on.
func (p *Personalise) check(parts []Part) error {
	if p.Hooks == nil {
		return nil
	}
	if len(p.Hooks) == 0 || len(p.Hooks) > MaxHooks {
		return fmt.Errorf("%d hooks; want 1 to %d, or no list", len(p.Hooks), MaxHooks)
	}
	for i := range p.Hooks {
		if err := p.Hooks[i].Check(); err != nil {
			return err
		}
	}
	if n := p.Bytes(); n > MaxHookBytes {
		return fmt.Errorf("hooks of %d bytes exceed the limit of %d", n, MaxHookBytes)
	}
	if !slices.ContainsFunc(parts, func(q Part) bool { return q.OS == "linux" }) {
		return errors.New("hooks need a Linux filesystem to work on, the image has none (files on NTFS cannot be made)")
	}
	return nil
}

// Bytes is the length of hooks.bin.
func (p *Personalise) Bytes() (n int64) {
	for _, h := range p.Hooks {
		n += h.Len
	}
	return n
}

// AttachHooks takes over hooks.bin (nil when there is none) and returns the content of each hook, after each was compared
// with its digest in the manifest.
func (m *Manifest) AttachHooks(bin []byte) ([][]byte, error) {
	if int64(len(bin)) != m.Personalise.Bytes() {
		return nil, fmt.Errorf("hooks.bin has %d bytes; the manifest says %d", len(bin), m.Personalise.Bytes())
	}
	out := make([][]byte, len(m.Personalise.Hooks))
	for i := range m.Personalise.Hooks {
		h := &m.Personalise.Hooks[i]
		if out[i] = bin[:h.Len:h.Len]; h.Kind != HookRemove {
			if err := h.CheckContent(out[i]); err != nil {
				return nil, err
			}
		}
		bin = bin[h.Len:]
	}
	return out, nil
}
