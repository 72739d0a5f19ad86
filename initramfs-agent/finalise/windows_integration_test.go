//go:build integration

package finalise

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/images/manifest"
	"labswarm/initramfs-agent/agenttest"
	"labswarm/initramfs-agent/disk"
	"labswarm/internal/testreq"
)

const windowsSize = 40 << 20 // of the NTFS volume, bytes

// answerFile is an answer file with a name and more bytes of comment.
func answerFile(name string, more int) string {
	return "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<unattend xmlns=\"urn:schemas-microsoft-com:unattend\">\r\n <settings pass=\"specialize\">\r\n" +
		"  <component name=\"Microsoft-Windows-Shell-Setup\">\r\n   <ComputerName>" + name + "</ComputerName>\r\n  </component>\r\n </settings>\r\n<!--" +
		strings.Repeat("x", more) + "-->\r\n</unattend>\r\n"
}

// newWindows is a disk with one NTFS volume that has files, made by ntfs-3g; more is a shell script in the mounted
// volume, after a shell script of the unmounted image.
func newWindows(t *testing.T, files map[string]string, more, after string) *agenttest.System {
	t.Helper()
	testreq.Tool(t, "ntfs-3g", "ntfs-3g")
	testreq.Tool(t, "mkntfs", "ntfs-3g")
	testreq.File(t, "/dev/fuse", "FUSE in the kernel")
	src := t.TempDir()
	for name, text := range files {
		p := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &agenttest.System{File: filepath.Join(t.TempDir(), "windows.raw"), FS: "ntfs", Size: windowsSize}
	agenttest.Sh(t, `truncate -s $(($2 + 3145728)) "$1"; truncate -s $2 "$1.fs"; d=$(mktemp -d -p "$(dirname "$1")")
mkntfs -q -F -f -c 4096 "$1.fs" 2> /dev/null; ntfs-3g -o compression "$1.fs" "$d"
trap 'cd /; umount "$d" 2> /dev/null || true' EXIT
(cd "$d"; `+more+`
cp -r "$3"/. .)
umount "$d"
img="$1.fs"; `+after+`
dd if="$1.fs" of="$1" bs=1M seek=1 conv=notrunc,sparse status=none; rm "$1.fs"`, s.File, itoa(windowsSize), src)
	return s
}

// ntfs reads the volume on a disk with ntfs-3g's tools: the files, after a check. Read only.
func readNTFS(t *testing.T, raw string, names ...string) map[string]string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "volume")
	agenttest.Sh(t, `dd if="$1" of="$2" bs=1M skip=1 count=40 conv=sparse status=none; ntfsfix -n "$2"`, raw, img)
	out := map[string]string{}
	for _, n := range names {
		out[n] = agenttest.Sh(t, `ntfscat "$1" "$2"`, img, n)
	}
	return out
}

func windowsParts() (*manifest.Manifest, []manifest.Part) {
	p := []manifest.Part{{N: 1, Start: agenttest.SystemStart, Size: windowsSize, FS: "ntfs", OS: "windows"}}
	return &manifest.Manifest{Parts: p}, slices.Clone(p)
}

// TestWindowsName: answer files in their records and outside, in pieces, in UTF-16, get the PC's name and nothing else
// on the volume changes.
func TestWindowsName(t *testing.T) {
	u16 := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(answerFile("*", 40))) {
		u16 = binary.LittleEndian.AppendUint16(u16, u)
	}
	files := map[string]string{
		"Windows/Panther/unattend.xml":          answerFile("LABSWARM-NAME-X", 20), // some hundred bytes: in its record
		"windows/panther/Unattend/Unattend.xml": string(u16),
		"Windows/System32/Sysprep/unattend.xml": answerFile("PLATZHALTER-PC1", 300<<10),
		"Windows/other.xml":                     answerFile("LABSWARM-NAME-X", 20),
	}
	delete(files, "windows/panther/Unattend/Unattend.xml")
	files["Windows/Panther/Unattend/Unattend.xml"] = string(u16)
	// Every second of many small files is removed: what is written then lies in their places.
	s := newWindows(t, files, `mkdir x; head -c 60M /dev/zero | split -b 4096 -a 4 -d - x/ 2> /dev/null || rm -f x/*[02468]`, "")
	want := readNTFS(t, s.File, slices.Collect(maps.Keys(files))...)
	for name, text := range want {
		if text != files[name] {
			t.Fatalf("%s is not what was written", name)
		}
		if name != "Windows/other.xml" {
			want[name] = ""
		}
	}
	l, w := seat(t, s, s.Size+3<<20)
	before := l.Content(t)
	m, parts := windowsParts()
	o := options(t, order.PersonaliseRequire)
	o.Host.Name = "A101-PLATZ-0123"
	var once []byte
	for range 2 { // the second time there is nothing left to do
		out, err := Run(t.Context(), w, m, parts, o)
		if err != nil || len(out.Warnings) != 0 {
			t.Fatalf("Run = %+v, %v", out, err)
		}
		if now := l.Content(t); once != nil && !bytes.Equal(once, now) {
			t.Error("a second run changed the disk")
		} else {
			once = now
		}
	}
	exclusive(t, l)
	changed := 0
	for i := range before {
		if before[i] != once[i] {
			changed++
		}
	}
	if changed == 0 || changed > 400 {
		t.Errorf("%d bytes of the disk are others; want some hundred at most", changed)
	}
	after := readNTFS(t, l.File, slices.Collect(maps.Keys(files))...)
	for name, text := range after {
		if len(text) != len(files[name]) {
			t.Errorf("%s has %d bytes, had %d", name, len(text), len(files[name]))
		}
		plain := strings.ReplaceAll(text, "\x00", "")
		if got := strings.Contains(plain, "<ComputerName>A101-PLATZ-0123</ComputerName>"); got != (name != "Windows/other.xml") {
			t.Errorf("%s: %.400q", name, plain)
		}
	}
	if frag := fragments(t, s.File, "Windows/System32/Sysprep/unattend.xml"); frag < 3 {
		t.Errorf("the long file lies in %d pieces: the test wants many", frag)
	}
}

// fragments counts the runs of a file, by ntfsinfo.
func fragments(t *testing.T, raw, name string) int {
	t.Helper()
	img := filepath.Join(t.TempDir(), "volume")
	out := agenttest.Sh(t, `dd if="$1" of="$2" bs=1M skip=1 count=40 conv=sparse status=none; ntfsinfo -v -F "$3" "$2" | sed -n 's/.*fragments: \([0-9]*\).*/\1/p'`, raw, img, name)
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWindowsRefused: what cannot be changed in place fails the host or is told, and nothing is written.
func TestWindowsRefused(t *testing.T) {
	answer := map[string]string{"Windows/Panther/unattend.xml": answerFile("LABSWARM-NAME-X", 9000)}
	for name, tt := range map[string]struct {
		files       map[string]string
		more, after string
		host        string
		err, warn   string
	}{
		"no answer file": {files: map[string]string{"Windows/x": ""}, warn: "keeps the computer name"},
		"no name in it":  {files: map[string]string{"Windows/Panther/unattend.xml": "<unattend/>"}, warn: "keeps the computer name"},
		"no room":        {files: map[string]string{"Windows/Panther/unattend.xml": strings.NewReplacer("\r\n", "", "  ", "", "> <", "><").Replace(answerFile("*", 0))}, host: "A101-PLATZ-0123", err: "no room"},
		"long name":      {files: answer, host: "a101-platz-01234", err: "1 to 15"},
		"dirty":          {files: answer, after: `ntfsfix "$img"`, err: "run chkdsk"},
		"hibernated":     {files: map[string]string{"hiberfil.sys": "hibr" + strings.Repeat("x", 5000), "Windows/Panther/unattend.xml": answerFile("x", 0)}, err: "hibernated"},
		"compressed":     {files: answer, more: `mkdir -p Windows/Panther; setfattr -h -n system.ntfs_attrib_be -v 0x00000810 Windows/Panther`, err: "compressed"},
		"sparse":         {files: map[string]string{"Windows/x": ""}, more: `mkdir -p Windows/Panther; truncate -s 100000 Windows/Panther/unattend.xml`, err: "sparse"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "compressed" {
				testreq.Tool(t, "setfattr", "attr")
			}
			s := newWindows(t, tt.files, strings.TrimSpace(tt.more+"\ntrue"), tt.after)
			l, w := seat(t, s, s.Size+3<<20)
			before := l.Content(t)
			m, parts := windowsParts()
			for _, policy := range []string{order.PersonaliseRequire, order.PersonaliseTry, order.PersonaliseOff} {
				o := options(t, policy)
				if tt.host != "" {
					o.Host.Name = tt.host
				}
				out, err := Run(t.Context(), w, m, parts, o)
				text := strings.Join(out.Warnings, " ")
				var f *api.Fault
				switch {
				case policy == order.PersonaliseOff:
					if err != nil || text != "" {
						t.Errorf("off: %q, %v", text, err)
					}
				case tt.err != "" && policy == order.PersonaliseRequire:
					if !errors.As(err, &f) || f.Code != api.CodePersonalise || !strings.Contains(f.Error(), tt.err) {
						t.Errorf("require: %v; want %q", err, tt.err)
					}
				case err != nil || !strings.Contains(text, tt.err+tt.warn):
					t.Errorf("%s: %q, %v; want a warning %q", policy, text, err, tt.err+tt.warn)
				}
			}
			if !bytes.Equal(before, l.Content(t)) {
				t.Error("the disk was written to")
			}
		})
	}
}

// TestOverwriteStaysInside: whatever a finder says, nothing beside the partition is written.
func TestOverwriteStaysInside(t *testing.T) {
	s := newWindows(t, map[string]string{"a": "b"}, "true", "")
	l, w := seat(t, s, s.Size+3<<20)
	before := l.Content(t)
	r := &run{d: w}
	p := partition{span: disk.Span{N: 1, Start: agenttest.SystemStart, Size: windowsSize}}
	for _, e := range []manifest.Extent{{Off: -1, Len: 4}, {Off: windowsSize - 2, Len: 4}, {Off: 8, Len: 5}, {Off: 1 << 62, Len: 4}, {Off: 0, Len: -4}} {
		if err := r.overwrite(p, []manifest.Extent{e}, []byte("abcd")); err == nil {
			t.Errorf("%+v was written", e)
		}
	}
	if !bytes.Equal(before, l.Content(t)) {
		t.Error("the disk was written to")
	}
}
