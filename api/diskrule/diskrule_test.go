package diskrule

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"labswarm/api"
)

func sata(name, serial string) api.Disk {
	return api.Disk{Name: name, Serial: serial, Model: "WDC", Bus: "sata", Bytes: 500 << 30, Sector: 512}
}

func with(d api.Disk, f func(*api.Disk)) api.Disk { f(&d); return d }

func TestExcluded(t *testing.T) {
	good := sata("sda", "s1")
	tests := []struct {
		name string
		d    api.Disk
		want string
	}{
		{"plain disk", good, ""},
		{"nvme", with(good, func(d *api.Disk) { d.Name, d.Bus = "nvme0n1", "nvme" }), ""},
		{"4Kn", with(good, func(d *api.Disk) { d.Sector = 4096 }), ""},
		{"permitted loop", with(good, func(d *api.Disk) { d.Name, d.Bus = "loop3", "loop" }), ""},
		{"loop", with(good, func(d *api.Disk) { d.Name = "loop3" }), "loop device"},
		{"ram", with(good, func(d *api.Disk) { d.Name = "ram0" }), "RAM disk"},
		{"zram", with(good, func(d *api.Disk) { d.Name = "zram0" }), "RAM disk"},
		{"dm", with(good, func(d *api.Disk) { d.Name = "dm-0" }), "device mapper"},
		{"md", with(good, func(d *api.Disk) { d.Name = "md127" }), "RAID device"},
		{"optical", with(good, func(d *api.Disk) { d.Name = "sr0" }), "optical drive"},
		{"floppy", with(good, func(d *api.Disk) { d.Name = "fd0" }), "floppy disk"},
		{"removable", with(good, func(d *api.Disk) { d.Removable = true }), "removable"},
		{"usb", with(good, func(d *api.Disk) { d.Bus = "usb" }), "connected by usb"},
		{"read-only", with(good, func(d *api.Disk) { d.ReadOnly = true }), "read-only"},
		{"empty card reader", with(good, func(d *api.Disk) { d.Bytes = 0 }), "no medium"},
		{"mounted", with(good, func(d *api.Disk) { d.InUse = "sda1 mounted on /" }), "in use: sda1 mounted on /"},
		{"odd sector", with(good, func(d *api.Disk) { d.Sector = 520 }), "sector size 520"},
	}
	for _, tt := range tests {
		if got := Excluded(tt.d); got != tt.want {
			t.Errorf("%s: Excluded = %q; want %q", tt.name, got, tt.want)
		}
	}
}

func parse(t testing.TB, text string) Rule {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParse(t *testing.T) {
	d := api.Disk{Serial: "S5Y1NX01", WWN: "5002538e40a1b2c3", Model: "Samsung SSD 870 EVO 500GB", Bus: "sata", Bytes: 500107862016, Sector: 512}
	for text, want := range map[string]bool{
		"": true, "  ": true, "S5Y1NX01": true, " s5y1nx01 ": true, "S5Y1NX02": false, "S5Y1": false,
		"5002538E40A1B2C3": true, "0x5002538e40a1b2c3": true, "wwn=naa.5002538e40a1b2c3": true, "wwn=eui.1": false, "serial=5002538e40a1b2c3": false,
		"serial=s5y1nx01": true, "model=samsung*": true, "model=Samsung SSD 8?0 EVO*": true, "model=Samsung": false, "model=*EVO*": true, "model=*": true, "model=*870": false,
		"bus=sata": true, "bus=nvme|sata": true, "bus=nvme": false, "BUS=SATA": true,
		"size=400G..600G": true, "size=..465G": false, "size=..466G": true, "size=465G..": true, "size=1T..": false, "size=500107862016..500107862016": true,
		"model=samsung*, bus=sata , size=400G..600G": true, "model=samsung*,bus=nvme": false,
	} {
		r, err := Parse(text)
		if err != nil || r.Match(d) != want {
			t.Errorf("%q: match %v, %v; want %v", text, r.Match(d), err, want)
		}
	}
	if parse(t, "x").Match(api.Disk{Bytes: 1}) || parse(t, "wwn=0x").Match(api.Disk{}) {
		t.Error("a disk without serial and WWN matches one that is named")
	}
	for text, words := range map[string]string{
		"bus=usb": "never written", "bus=floppy": "unknown", "colour=red": "unknown", "size=5G": "range", "size=..": "range", "size=6G..5G": "nothing", "size=a..": "parse size",
		"model=": "KEY=VALUE", "model=a,model=b": "twice", "model=a,S1": "KEY=VALUE", "a\x00": "ASCII", strings.Repeat("a", 300): "characters", "model=ä": "ASCII", "serial=1,,": "KEY=VALUE",
	} {
		if r, err := Parse(text); err == nil || !strings.Contains(err.Error(), words) || !r.Zero() {
			t.Errorf("%q: %v, %v; want an error with %q", text, r, err, words)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"S1", "model=a*b?,bus=nvme|sata,size=1G..2T", "wwn=0x5,serial=1"} {
		f.Add(s, "a model")
	}
	f.Fuzz(func(t *testing.T, text, model string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		d := api.Disk{Model: model, Serial: model, Bus: "sata", Bytes: 1 << 30}
		if err != nil || again.Match(d) != r.Match(d) {
			t.Errorf("%q does not survive its own text %q: %v", text, r, err)
		}
	})
}

const gib = int64(1) << 30

func want() Want { return Want{MinBytes: 6 * gib, Sector: 512} }

func TestPick(t *testing.T) {
	d := func(name, serial string, bytes int64) api.Disk {
		return api.Disk{Name: name, Serial: serial, Model: "M", Bus: "sata", Bytes: bytes, Sector: 512}
	}
	big, small, other := d("sda", "S1", 8*gib), d("sdb", "S2", 4*gib), d("sdc", "S3", 9*gib)
	lvm := func(d *api.Disk) { d.Foreign = []api.Mark{{Kind: "lvm", Off: 1 << 20, Where: d.Name + "3"}} }
	two := func(d *api.Disk) {
		d.Foreign = []api.Mark{{Kind: "mdraid", Off: 1 << 20, Where: "sda1"}, {Kind: "luks", Off: 1 << 30, Where: "sda2"}}
	}
	rules := func(texts ...string) func(*Want) {
		return func(w *Want) {
			for _, s := range texts {
				w.Rules = append(w.Rules, parse(t, s))
			}
		}
	}
	for _, tc := range []struct {
		name  string
		disks []api.Disk
		set   func(*Want)
		want  string // serial
		code  string
		words []string // that the message must hold
	}{
		{name: "the only disk", disks: []api.Disk{big}, want: "S1"},
		{name: "the only one that fits", disks: []api.Disk{big, small}, want: "S1"},
		{name: "none", code: api.CodeDiskNotFound, words: []string{"none", "RAID or VMD"}},
		{name: "too small, both numbers and the remedy", disks: []api.Disk{small}, code: api.CodeDiskTooSmall, words: []string{"6442450944", "4294967296", "shrink", "S2", "sata"}},
		{name: "sector", disks: []api.Disk{with(big, func(d *api.Disk) { d.Sector = 4096 })}, code: api.CodeDiskSector, words: []string{"512-byte", "4096-byte"}},
		{name: "two fit", disks: []api.Disk{big, other}, code: api.CodeAmbiguous, words: []string{"S1", "S3", "host set"}},
		{name: "two fit, one chosen", disks: []api.Disk{big, other}, set: rules(" s3 "), want: "S3"},
		{name: "chosen by model and size", disks: []api.Disk{big, other}, set: rules("model=m,size=..8G"), want: "S1"},
		{name: "host's and job's rule must both hold", disks: []api.Disk{big, other}, set: rules("S3", "bus=nvme"), code: api.CodeDiskNotFound, words: []string{"S3", "bus=nvme"}},
		{name: "a rule that two fit", disks: []api.Disk{big, other}, set: rules("bus=sata"), code: api.CodeAmbiguous, words: []string{"bus=sata"}},
		{name: "chosen one is absent", disks: []api.Disk{big}, set: rules("S9"), code: api.CodeDiskNotFound, words: []string{"S9", "S1"}},
		{name: "chosen one is too small", disks: []api.Disk{big, small}, set: rules("S2"), code: api.CodeDiskTooSmall, words: []string{"S2"}},
		{name: "a rule does not make a USB disk one", disks: []api.Disk{with(big, func(d *api.Disk) { d.Bus = "usb" })}, set: rules("S1"), code: api.CodeDiskNotFound},
		{name: "removable", disks: []api.Disk{with(big, func(d *api.Disk) { d.Removable = true })}, code: api.CodeDiskNotFound},
		{name: "read-only", disks: []api.Disk{with(big, func(d *api.Disk) { d.ReadOnly = true })}, code: api.CodeDiskNotFound},
		{name: "the disk that the running system is on", disks: []api.Disk{with(big, func(d *api.Disk) { d.InUse = "sda1 mounted on /" })}, code: api.CodeDiskNotFound, words: []string{"mounted on /"}},
		{name: "left out by the agent", disks: []api.Disk{with(big, func(d *api.Disk) { d.Note = "sulks" })}, code: api.CodeDiskNotFound, words: []string{"sulks"}},
		{name: "unnamed but alone", disks: []api.Disk{with(big, func(d *api.Disk) { d.Serial = "" })}, want: ""},
		{name: "unnamed and not alone", disks: []api.Disk{with(big, func(d *api.Disk) { d.Serial = "" }), small}, code: api.CodeAmbiguous},

		{name: "member of a pool", disks: []api.Disk{with(big, lvm)}, code: api.CodeDiskForeign, words: []string{"lvm (sda3)", "--replace-foreign lvm", "S1"}},
		{name: "given up", disks: []api.Disk{with(big, lvm)}, set: func(w *Want) { w.Replace = []string{"lvm"} }, want: "S1"},
		{name: "another kind given up", disks: []api.Disk{with(big, lvm)}, set: func(w *Want) { w.Replace = []string{"luks", "zfs"} }, code: api.CodeDiskForeign},
		{name: "one of two given up", disks: []api.Disk{with(big, two)}, set: func(w *Want) { w.Replace = []string{"luks"} }, code: api.CodeDiskForeign, words: []string{"--replace-foreign mdraid;"}},
		{name: "the image's own", disks: []api.Disk{with(big, lvm)}, set: func(w *Want) { w.Own = []api.Mark{{Kind: "lvm", Off: 1 << 20}} }, want: "S1"},
		{name: "the image's own elsewhere", disks: []api.Disk{with(big, lvm)}, set: func(w *Want) { w.Own = []api.Mark{{Kind: "lvm", Off: 2 << 20}} }, code: api.CodeDiskForeign},
		{name: "begun before", disks: []api.Disk{with(big, lvm)}, set: func(w *Want) { w.Resume = true }, want: "S1"},
		{name: "only read", disks: []api.Disk{with(big, func(d *api.Disk) { lvm(d); d.Sector = 4096 })}, set: func(w *Want) { w.Read = true }, want: "S1"},
		{name: "only read, but which", disks: []api.Disk{big, other}, set: func(w *Want) { w.Read = true }, code: api.CodeAmbiguous},
		{name: "foreign data does not tell disks apart", disks: []api.Disk{with(big, lvm), other}, code: api.CodeAmbiguous, words: []string{"lvm (sda3)"}},
		{name: "cannot be read", disks: []api.Disk{with(big, func(d *api.Disk) { d.Foreign = []api.Mark{{Kind: api.MarkUnreadable, Where: "input/output error"}} })},
			set: func(w *Want) { w.Replace = []string{api.MarkUnreadable} }, code: api.CodeDiskRead, words: []string{"input/output error"}},
	} {
		w := want()
		if tc.set != nil {
			tc.set(&w)
		}
		got, fault := Pick(tc.disks, w)
		if tc.code == "" {
			if fault != nil || got.Serial != tc.want {
				t.Errorf("%s: %v, %v; want disk %q", tc.name, got, fault, tc.want)
			}
			continue
		}
		if fault == nil || got != nil || fault.Code != tc.code {
			t.Errorf("%s: %v, %v; want %s", tc.name, got, fault, tc.code)
			continue
		}
		for _, words := range tc.words {
			if !strings.Contains(fault.Text, words) {
				t.Errorf("%s: %q; want %q in it", tc.name, fault.Text, words)
			}
		}
	}
}

// TestPickNeverHurts is the rule as a property: whatever disks and rules there are, the one chosen may be written, and
// the answer is the same in whatever order the disks are listed.
func TestPickNeverHurts(t *testing.T) {
	mark := rapid.Custom(func(t *rapid.T) api.Mark {
		return api.Mark{Kind: rapid.SampledFrom([]string{"lvm", "luks", "mdraid", api.MarkUnreadable}).Draw(t, "kind"), Off: rapid.SampledFrom([]int64{0, 1 << 20}).Draw(t, "off"), Where: "x"}
	})
	disk := rapid.Custom(func(t *rapid.T) api.Disk {
		return api.Disk{
			Name:   rapid.SampledFrom([]string{"sda", "sdb", "nvme0n1", "loop0", "dm-0", "sr0", "vda"}).Draw(t, "name"),
			Serial: rapid.SampledFrom([]string{"", "A", "B", "C"}).Draw(t, "serial"), WWN: rapid.SampledFrom([]string{"", "", "w1"}).Draw(t, "wwn"),
			Model: rapid.SampledFrom([]string{"", "X", "XY"}).Draw(t, "model"), Bus: rapid.SampledFrom([]string{"sata", "sata", "usb", "nvme"}).Draw(t, "bus"),
			Bytes: rapid.SampledFrom([]int64{0, 5, 6, 7, 8}).Draw(t, "GiB") * gib, Sector: rapid.SampledFrom([]int{512, 512, 4096}).Draw(t, "sector"),
			InUse: rapid.SampledFrom([]string{"", "", "", "mounted"}).Draw(t, "use"), Removable: rapid.IntRange(0, 5).Draw(t, "removable") == 0,
			ReadOnly: rapid.IntRange(0, 5).Draw(t, "ro") == 0, Foreign: rapid.SliceOfN(mark, 0, 2).Draw(t, "foreign"),
		}
	})
	rule := rapid.SampledFrom([]string{"", "", "A", "model=X*", "bus=nvme|sata", "size=6G..7G", "serial=B,bus=sata"})
	picked := 0
	rapid.Check(t, func(rt *rapid.T) {
		disks := rapid.SliceOfN(disk, 0, 4).Draw(rt, "disks")
		w := want()
		w.Rules = []Rule{parse(t, rule.Draw(rt, "host")), parse(t, rule.Draw(rt, "job"))}
		w.Replace = rapid.SliceOfN(rapid.SampledFrom([]string{"lvm", "luks"}), 0, 2).Draw(rt, "replace")
		w.Own = rapid.SliceOfN(mark, 0, 1).Draw(rt, "own")
		before := slices.Clone(disks)
		got, fault := Pick(disks, w)
		if !cmp.Equal(before, disks) {
			rt.Fatal("Pick changed its argument")
		}
		again, fault2 := Pick(rapid.Permutation(disks).Draw(rt, "another order"), w)
		if !twins(disks) && (!cmp.Equal(got, again) || !cmp.Equal(fault, fault2)) || (got == nil) != (again == nil) {
			rt.Fatalf("%v, %v in one order and %v, %v in another", got, fault, again, fault2)
		}
		if (got == nil) == (fault == nil) {
			rt.Fatalf("Pick = %v, %v; want one of them", got, fault)
		}
		if got == nil {
			return
		}
		picked++
		harmless(rt, *got, disks, w)
	})
	if picked == 0 {
		t.Error("no disk was ever picked: the property proves nothing")
	}
}

// twins reports whether two disks cannot be told apart by what the list is sorted by.
func twins(disks []api.Disk) bool {
	for i, a := range disks {
		for _, b := range disks[:i] {
			if a.Name == b.Name {
				return true
			}
		}
	}
	return false
}

// harmless says again, in other words, what a picked disk must be.
func harmless(rt *rapid.T, d api.Disk, all []api.Disk, w Want) {
	if d.Removable || d.ReadOnly || d.InUse != "" || d.Bus == "usb" || d.Bytes < w.MinBytes || d.Sector != w.Sector || strings.HasPrefix(d.Name, "loop") || strings.HasPrefix(d.Name, "dm-") || strings.HasPrefix(d.Name, "sr") {
		rt.Fatalf("picked %+v", d)
	}
	for _, m := range d.Foreign {
		own := slices.ContainsFunc(w.Own, func(o api.Mark) bool { return o.Kind == m.Kind && o.Off == m.Off })
		if !own && !slices.Contains(w.Replace, m.Kind) {
			rt.Fatalf("picked %+v in spite of %v", d, m)
		}
	}
	n := 0
	for _, x := range all {
		if Excluded(x) == "" && x.Bytes >= w.MinBytes && x.Sector == w.Sector && w.Rules[0].Match(x) && w.Rules[1].Match(x) {
			n++
		}
	}
	if n != 1 {
		rt.Fatalf("picked %+v, though %d disks fit", d, n)
	}
}
