package bootfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/u-root/u-root/pkg/cpio"

	"labswarm/server/decide"
	"labswarm/server/netboot/bootreq"
)

func testPins(t testing.TB) []byte {
	t.Helper()
	p, err := PinsJSON([][]byte{bytes.Repeat([]byte{1}, 32)}, [][]byte{bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func bootDir(t testing.TB, leaveOut ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{NameShim, NameGRUB, NameUndionly, NameKernel, NameInitrd, "initrd-virtual.img", "snponly.efi", "notes.txt"} {
		skip := false
		for _, l := range leaveOut {
			skip = skip || l == name
		}
		if skip {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	f, err := Load(bootDir(t), testPins(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range f.List() {
		names = append(names, x.Name)
		if x.SHA256 != sha256.Sum256(x.Data) || len(x.Digest()) != 64 {
			t.Errorf("%s: digest is not that of the data served", x.Name)
		}
	}
	want := []string{"grubx64.efi", "initrd-virtual.img", "initrd.img", "shimx64.efi", "snponly.efi", "undionly.kpxe", "vmlinuz"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	for _, n := range []string{"notes.txt", "", "../" + NameShim, "SHIMX64.EFI"} {
		if _, ok := f.Get(n); ok {
			t.Errorf("Get(%q) found a file", n)
		}
	}
}

// TestPinsInFrontOfInitrd reads the composed initramfs as the kernel does: an
// archive, zero bytes up to the next aligned one, the base archive untouched.
func TestPinsInFrontOfInitrd(t *testing.T) {
	pins := testPins(t)
	f, err := Load(bootDir(t), pins)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{NameInitrd, "initrd-virtual.img"} {
		img, _ := f.Get(name)
		base := []byte("content of " + name)
		if !bytes.HasSuffix(img.Data, base) {
			t.Fatalf("%s does not end with its base archive", name)
		}
		front := img.Data[:len(img.Data)-len(base)]
		if len(front)%initrdAlign != 0 {
			t.Errorf("%s: base archive starts at %d, not on a boundary of %d", name, len(front), initrdAlign)
		}
		recs, err := cpio.ReadAllRecords(cpio.EOFReader{RecordReader: cpio.Newc.Reader(bytes.NewReader(front))})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range recs {
			got = append(got, r.Name)
			if r.Name == PinsPath {
				b := make([]byte, r.FileSize)
				if _, err := r.ReadAt(b, 0); err != nil || !bytes.Equal(b, pins) {
					t.Errorf("pins in the archive = %q, %v; want %q", b, err, pins)
				}
			}
		}
		if d := cmp.Diff([]string{"etc", "etc/labswarm", PinsPath}, got); d != "" {
			t.Errorf("archive (-want +got):\n%s", d)
		}
	}
	again, err := Load(bootDir(t), pins)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := f.Get(NameInitrd)
	b, _ := again.Get(NameInitrd)
	if a.SHA256 != b.SHA256 {
		t.Error("equal pins and base give different bytes")
	}
}

func TestMissingFilesAreNamedWithTheirPackage(t *testing.T) {
	_, err := Load(bootDir(t, NameShim, NameInitrd, "snponly.efi"), testPins(t))
	var miss *MissingError
	if !errors.As(err, &miss) || len(miss.Names) != 2 {
		t.Fatalf("Load = %v; want a MissingError with two names", err)
	}
	for _, w := range []string{"shimx64.efi (Debian package shim-signed)", "initrd.img (made by `make initramfs`)"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	dir := bootDir(t)
	if err := os.WriteFile(filepath.Join(dir, NameKernel), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, testPins(t)); err == nil || !strings.Contains(err.Error(), "vmlinuz") {
		t.Errorf("Load with an empty kernel = %v", err)
	}
}

func TestBadPins(t *testing.T) {
	for _, p := range []string{"", "{}", `{"server_keys":["AAAA"],"image_keys":["AAAA"]}`, `{"server_keys":[],"image_keys":[],"x":1}`, "[]"} {
		if _, err := Load(bootDir(t), []byte(p)); err == nil {
			t.Errorf("pins %q were accepted", p)
		}
	}
	if _, err := PinsJSON(nil, [][]byte{make([]byte, 32)}); err == nil {
		t.Error("PinsJSON without a server key succeeded")
	}
	if _, err := PinsJSON([][]byte{make([]byte, 31)}, [][]byte{make([]byte, 32)}); err == nil {
		t.Error("PinsJSON with a short key succeeded")
	}
}

func testScripts(t testing.TB) *Scripts {
	t.Helper()
	s, err := NewScripts(Site{IP: netip.MustParseAddr("10.77.0.1"), KeyID: "0011223344556677"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	mac  = "52:54:00:77:00:01"
	uuid = "00112233-4455-6677-8899-aabbccddeeff"
)

func as(a decide.Action) bootreq.Answer { return bootreq.Answer{Decision: decide.Decision{Action: a}} }

// The scripts of design section 4, with SRV, PORT, KEYID and MAC filled in.
var designScripts = map[string]string{
	"autoexec": `#!ipxe
# autoexec.ipxe (UEFI iPXE >= 2022)
ifconf -c dhcp || goto out
chain http://10.77.0.1/boot.ipxe?mac=${netX/mac}&uuid=${uuid} || goto out
:out
exit 1
`,
	"ipxe-agent": `#!ipxe
# boot.ipxe, decision = agent
set n:int32 0
:again
kernel http://10.77.0.1/vmlinuz initrd=initrd.img quiet panic=10 labswarm.server=10.77.0.1:7440 labswarm.kid=0011223344556677 BOOTIF=01-52-54-00-77-00-01 || goto slow
initrd --name initrd.img http://10.77.0.1/initrd.img || goto slow
boot || goto slow
:slow
imgfree
inc n
iseq ${n} 5 && reboot ||
sleep 5
goto again
`,
	"ipxe-local": `#!ipxe
# boot.ipxe, decision = local
iseq ${platform} efi && exit 1 ||
sanboot --no-describe --drive 0x80 || exit 1
`,
	"ipxe-hold": `#!ipxe
# boot.ipxe, decision = hold
:again
echo labswarm: HOLD - see console
sleep 60
chain --replace http://10.77.0.1/boot.ipxe?mac=52:54:00:77:00:01&uuid=00112233-4455-6677-8899-aabbccddeeff || goto again
`,
	"grub.cfg": `# /grub/grub.cfg, static, the same for all
set srv=$net_default_server
if [ -z "$srv" ]; then set srv=$pxe_default_server; fi
smbios --type 1 --get-uuid 8 --set uuid
for try in 1 2 3; do
  configfile "(http,$srv)/host.cfg?mac=$net_default_mac&uuid=$uuid"
  configfile "(tftp,$srv)/host/$net_default_mac.cfg"
  sleep 3
done
sleep 10
reboot
`,
	"grub-agent": `# host.cfg, decision = agent
linux  (http,10.77.0.1)/vmlinuz quiet panic=10 labswarm.server=10.77.0.1:7440 labswarm.kid=0011223344556677 BOOTIF=01-52-54-00-77-00-01
initrd (http,10.77.0.1)/initrd.img
boot
`,
	"grub-agent-tftp": `# host.cfg, decision = agent
linux  (tftp,10.77.0.1)/vmlinuz quiet panic=10 labswarm.server=10.77.0.1:7440 labswarm.kid=0011223344556677 BOOTIF=01-52-54-00-77-00-01
initrd (tftp,10.77.0.1)/initrd.img
boot
`,
	"grub-local": `# host.cfg, decision = local
for f in /EFI/debian/shimx64.efi /EFI/ubuntu/shimx64.efi /EFI/Microsoft/Boot/bootmgfw.efi /EFI/BOOT/BOOTX64.EFI; do
  if search --no-floppy --file $f --set=root; then chainloader $f; boot; fi
done
sleep 10
reboot
`,
	"grub-hold": `# host.cfg, decision = hold
echo "labswarm: HOLD - see console"
sleep 60
`,
}

func rendered(t testing.TB) map[string]string {
	s := testScripts(t)
	return map[string]string{
		"autoexec":        string(s.Autoexec()),
		"ipxe-agent":      string(s.IPXE(as(decide.Agent), mac, uuid)),
		"ipxe-local":      string(s.IPXE(as(decide.Local), mac, uuid)),
		"ipxe-hold":       string(s.IPXE(as(decide.Hold), mac, uuid)),
		"grub.cfg":        string(s.GrubCfg()),
		"grub-agent":      string(s.GRUB(as(decide.Agent), mac, false)),
		"grub-agent-tftp": string(s.GRUB(as(decide.Agent), mac, true)),
		"grub-local":      string(s.GRUB(as(decide.Local), mac, false)),
		"grub-hold":       string(s.GRUB(as(decide.Hold), mac, false)),
	}
}

func TestScriptsAreThoseOfTheDesign(t *testing.T) {
	if d := cmp.Diff(designScripts, rendered(t)); d != "" {
		t.Errorf("scripts (-design +rendered):\n%s", d)
	}
	s := testScripts(t)
	if string(s.IPXE(as(decide.Ignore), mac, uuid)) != designScripts["ipxe-local"] || string(s.GRUB(as(decide.Ignore), mac, true)) != designScripts["grub-local"] {
		t.Error("ignore does not render as local")
	}
	// Enrol is the agent's chain with an initramfs of its own, whatever the
	// answer says about it.
	a := as(decide.Enrol)
	a.Initrd = "initrd.img"
	for name, got := range map[string]string{"ipxe-agent": string(s.IPXE(a, mac, uuid)), "grub-agent-tftp": string(s.GRUB(a, mac, true)), "grub-agent": string(s.GRUB(a, mac, false))} {
		want := strings.ReplaceAll(strings.Replace(designScripts[name], "decision = agent", "decision = enrol", 1), "/initrd.img", "/initrd-enrol.img")
		if got != want {
			t.Errorf("enrol renders as\n%s\nwant\n%s", got, want)
		}
	}
}

// TestScriptRules: every goto has its label, nothing ends at a prompt, GRUB
// never runs exit (it opens the firmware's setup screen).
func TestScriptRules(t *testing.T) {
	gotoRE := regexp.MustCompile(`goto (\w+)`)
	for name, text := range rendered(t) {
		for _, m := range gotoRE.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(text, "\n:"+m[1]+"\n") {
				t.Errorf("%s: goto %s has no label", name, m[1])
			}
		}
		grub := !strings.HasPrefix(text, "#!ipxe\n")
		for _, line := range strings.Split(text, "\n") {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if grub && word == "exit" {
				t.Errorf("%s: GRUB's exit ends in the setup screen: %q", name, line)
			}
			if !grub && (word == "exit" && line != "exit 1") {
				t.Errorf("%s: only `exit 1` goes on to the next boot entry: %q", name, line)
			}
			if !grub && strings.Count(line, "||") == 0 && (word == "kernel" || word == "initrd" || word == "chain" || word == "boot" || word == "ifconf") {
				t.Errorf("%s: a failure of %q ends at the iPXE prompt", name, line)
			}
		}
		if !strings.HasSuffix(text, "\n") || strings.Contains(text, "\r") || len(text) > 4096 {
			t.Errorf("%s: not a plain text script", name)
		}
	}
}

// TestNothingIsEchoed: values that could end a command or start another never
// reach a script.
func TestNothingIsEchoed(t *testing.T) {
	s := testScripts(t)
	evil := "\n;reboot;${x}$(x)`x`\"'&|<>\\"
	a := as(decide.Agent)
	a.KernelArgs, a.Kernel, a.Initrd = "init=/x"+evil, evil, "../../etc/passwd"
	a.Loaders = []string{evil, "/EFI/../x.efi", "/etc/passwd", "EFI/x.efi", "/EFI/ok/x.efi; reboot"}
	for _, got := range []string{string(s.IPXE(a, evil, evil)), string(s.GRUB(a, evil, false)), string(s.GRUB(a, evil, true)), s.BootURL(evil, evil)} {
		if strings.Contains(got, "init=/x") || strings.Contains(got, "passwd") || strings.Contains(got, "$(x)") || strings.Contains(got, "`") {
			t.Errorf("a value from outside reached the script:\n%s", got)
		}
	}
	a.Decision.Action = decide.Local
	if got := string(s.GRUB(a, mac, false)); got != designScripts["grub-local"] {
		t.Errorf("bad loaders reached the script:\n%s", got)
	}
	a.Loaders = []string{"/EFI/fedora/shimx64.efi"}
	if got := string(s.GRUB(a, mac, false)); !strings.Contains(got, "for f in /EFI/fedora/shimx64.efi; do\n") {
		t.Errorf("the host's own loader is not used:\n%s", got)
	}
	for _, bad := range []Site{{IP: netip.MustParseAddr("::1"), KeyID: "00"}, {IP: netip.MustParseAddr("10.0.0.1"), KeyID: ""},
		{IP: netip.MustParseAddr("10.0.0.1"), KeyID: "a b"}, {IP: netip.MustParseAddr("10.0.0.1"), KeyID: "00", KernelArgs: "a;b"}} {
		if _, err := NewScripts(bad); err == nil {
			t.Errorf("NewScripts(%+v) succeeded", bad)
		}
	}
}

func TestPerHostChoices(t *testing.T) {
	s, err := NewScripts(Site{IP: netip.MustParseAddr("10.77.0.1"), HTTPPort: 8080, AgentPort: 9000, KeyID: "ab", KernelArgs: "console=ttyS0,115200"})
	if err != nil {
		t.Fatal(err)
	}
	a := as(decide.Agent)
	a.KernelArgs, a.Kernel, a.Initrd = "nomodeset", "vmlinuz-virtual", "initrd-virtual.img"
	got := string(s.IPXE(a, mac, ""))
	for _, w := range []string{"kernel http://10.77.0.1:8080/vmlinuz-virtual initrd=initrd.img quiet ", "http://10.77.0.1:8080/initrd-virtual.img ",
		"labswarm.server=10.77.0.1:9000 ", "BOOTIF=01-52-54-00-77-00-01 console=ttyS0,115200 nomodeset ||"} {
		if !strings.Contains(got, w) {
			t.Errorf("script lacks %q:\n%s", w, got)
		}
	}
	if u := s.BootURL(mac, uuid); len(u) > 127 {
		t.Errorf("%s has %d bytes; the DHCP file field takes 127", u, len(u))
	}
}

func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		"//grubx64.efi": "grubx64.efi", "/grub/grub.cfg": "grub/grub.cfg", "shimx64.efi": "shimx64.efi", `\grub\grub.cfg`: "grub/grub.cfg",
		"../../../etc/passwd": "etc/passwd", "/a/../../b": "b", "": "", "/": "", "Vmlinuz": "Vmlinuz", "/./x//y/": "x/y",
	} {
		if got := CleanPath(in); got != want {
			t.Errorf("CleanPath(%q) = %q; want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"host/52:54:00:77:00:01.cfg": mac, "host/52-54-00-77-00-01.cfg": mac, "host/.cfg": "", "host/x.cfg": "", "host.cfg": "", "x/52:54:00:77:00:01.cfg": ""} {
		if got, ok := HostCfgMAC(in); got != want || ok != (want != "") {
			t.Errorf("HostCfgMAC(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"//grubx64.efi", `..\..\x`, "host/52:54:00:77:00:01.cfg", "/EFI/BOOT/BOOTX64.EFI", "console=ttyS0,115200"} {
		f.Add(s)
	}
	files, err := Load(bootDir(f), testPins(f))
	if err != nil {
		f.Fatal(err)
	}
	s := testScripts(f)
	f.Fuzz(func(t *testing.T, in string) {
		c := CleanPath(in)
		if strings.HasPrefix(c, "/") || c == ".." || strings.HasPrefix(c, "../") || strings.Contains(c, "/../") {
			t.Fatalf("CleanPath(%q) = %q climbs", in, c)
		}
		if CleanPath(c) != c {
			t.Fatalf("CleanPath(%q) = %q is not clean", in, c)
		}
		files.Get(c)
		HostCfgMAC(c)
		a := as(decide.Agent)
		a.KernelArgs, a.Kernel, a.Initrd, a.Loaders = in, in, in, []string{in}
		for _, text := range [][]byte{s.IPXE(a, in, in), s.GRUB(a, in, true), s.GRUB(as(decide.Local), in, true)} {
			if bytes.ContainsAny(text, "`\\;&\x00<>'") && !bytes.Contains(text, []byte("then chainloader")) && !bytes.Contains(text, []byte("&&")) {
				t.Fatalf("a special character reached the script:\n%s", text)
			}
			if n := bytes.Count(text, []byte("\n")); n > 13 {
				t.Fatalf("a line was added to the script:\n%s", text)
			}
		}
	})
}
