package unpack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
)

// czImage is a folder that Clonezilla's "savedisk" made. The names of its files are those that Clonezilla 5.3's
// ocs-functions writes; older ones are the same but for the volumes' count of letters.
type czImage struct {
	disk  string // sda, nvme0n1, ...
	table czTable
	files map[string]*czData // by the partition's device name
	swaps map[string]swapID
}

// czTable is what the folder holds of the partition table.
type czTable struct {
	gpt    []byte // first 34 sectors; nil for an MBR
	mbr    []byte // first sector; may be missing on GPT
	hidden []byte // what follows it, on an MBR; may be missing
	dump   []byte // output of sfdisk -d
	parted []byte // output of parted ... unit s print; may be missing
}

// czData is the content of one partition.
type czData struct {
	fs   string // partclone's name of the filesystem; dd = every byte
	raw  bool   // a plain copy, not in partclone's format
	vols []string
	in   []input
}

const (
	czMaxFiles = 20000
	czMaxText  = 256 << 10 // bytes of any of the small files
	czSector   = 512
)

var (
	// czDevice is a whole disk's name. Device names with a slash (cciss) are of controllers that boot by other means.
	czDevice = regexp.MustCompile(`^(?:[hsvx]v?d[a-z]{1,3}|nvme[0-9]{1,3}n[0-9]{1,3}|mmcblk[0-9]{1,3}|md[0-9]{1,3}|pmem[0-9]{1,3})$`)
	// What partclone wrote names its packing, what dd wrote does not.
	czPtcl   = regexp.MustCompile(`^([a-z0-9]{3,20})\.([a-z0-9+]{1,16})-ptcl-img\.(gz|bz2|lzo|lzma|xz|lzip|lrz|lz4|zst|uncomp)(?:\.([a-z]{2,4}))?$`)
	czOther  = regexp.MustCompile(`^([a-z0-9]{3,20})\.([a-z0-9+]{1,16})-img(?:\.([a-z]{2,4}))?$`)
	czLikely = regexp.MustCompile(`-img(\.|$)`)
)

// czFile is what the name of a file in the folder says.
type czFile struct {
	part string // device name of the partition
	fs   string
	ptcl bool   // "-ptcl-img", written by partclone
	comp string // suffix; "" = the name does not say
	vol  string // letters of the volume; "" = all in one
}

// key is the name without the volume.
func (f czFile) key() string {
	k := f.part + "." + f.fs + "-"
	if f.ptcl {
		k += "ptcl-"
	}
	k += "img"
	if f.comp != "" {
		k += "." + f.comp
	}
	return k
}

// parseCzName reads a file name. ok is false for names that are of no partition's content.
func parseCzName(name string) (f czFile, ok bool) {
	if m := czPtcl.FindStringSubmatch(name); m != nil {
		return czFile{part: m[1], fs: m[2], ptcl: true, comp: m[3], vol: m[4]}, true
	}
	if m := czOther.FindStringSubmatch(name); m != nil {
		return czFile{part: m[1], fs: m[2], vol: m[3]}, true
	}
	return czFile{}, false
}

// volume returns the letters of volume i (from 0) when they are n long: aa, ab, ... (split -a n).
func volume(i, n int) string {
	b := make([]byte, n)
	for k := n - 1; k >= 0; k-- {
		b[k] = 'a' + byte(i%26)
		i /= 26
	}
	return string(b)
}

// groupVolumes puts the files of each partition together, in order. Every error names a file.
func groupVolumes(names []string) (map[string]*czData, error) {
	vols := map[string][]czFile{}
	part := map[string]string{} // partition to key
	for _, name := range names {
		f, ok := parseCzName(name)
		if !ok {
			if czLikely.MatchString(name) && !strings.HasSuffix(name, ".info") && !strings.Contains(name, "clonezilla-img") {
				return nil, fmt.Errorf("the name of the file %q is not understood: it is packed in a way that is not known, or not Clonezilla's", name)
			}
			continue
		}
		if other, ok := part[f.part]; ok && other != f.key() {
			return nil, fmt.Errorf("there are two copies of the partition %s: %q and %q", f.part, other, f.key())
		}
		part[f.part] = f.key()
		vols[f.key()] = append(vols[f.key()], f)
	}
	out := map[string]*czData{}
	for key, list := range vols {
		f := list[0]
		if !f.ptcl && f.fs != "dd" {
			return nil, fmt.Errorf("%q was made by ntfsclone or partimage, which are not read here: restore it to a disk and save that with partclone, Clonezilla's default", key)
		}
		if why := refusedSuffix(f.comp); why != "" {
			return nil, fmt.Errorf("%q %s", key, why)
		}
		d := &czData{fs: f.fs, raw: f.fs == "dd"}
		slices.SortFunc(list, func(a, b czFile) int { return strings.Compare(a.vol, b.vol) })
		for i, v := range list {
			want := key
			if len(list) > 1 || v.vol != "" {
				want += "." + volume(i, max(2, len(list[len(list)-1].vol)))
			}
			if have := strings.TrimSuffix(key+"."+v.vol, "."); have != want {
				return nil, fmt.Errorf("the volume %q is missing", want)
			}
			d.vols = append(d.vols, want)
		}
		out[f.part] = d
	}
	return out, nil
}

// refusedSuffix says why content packed this way is not read.
func refusedSuffix(comp string) string {
	switch comp {
	case "", "uncomp", "gz", "bz2", "xz", "zst":
		return ""
	}
	return "is packed with " + comp + ", which is not read here: convert the image with zstd, gzip or xz (Clonezilla: ocs-related programs, or unpack and pack each volume set again)"
}

// openClonezilla looks into a folder.
func (s *Source) openClonezilla() error {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return fmt.Errorf("open disk image: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing is written to it
	names, err := listDir(root)
	if err != nil {
		return fmt.Errorf("open disk image %q: %w", s.path, err)
	}
	has := func(name string) bool { _, ok := slices.BinarySearch(names, name); return ok }
	if !has("clonezilla-img") && !has("parts") && !has("disk") {
		return s.errorf("it is a folder, and none of Clonezilla's: name the file that holds the whole disk")
	}
	for name, why := range map[string]string{
		"lvm_vg_dev.list": "it holds LVM volumes, of which Clonezilla saves the content and not the layout: restore it to a disk and import that",
		"luks-dev.list":   "it holds encrypted partitions (LUKS) that were opened to save them: restore it to a disk and import that",
		"ecryptfs.info":   "it is encrypted: decrypt it with Clonezilla first",
	} {
		if has(name) {
			return s.errorf("%s", why)
		}
	}
	s.format, s.size, s.cz = Clonezilla, 0, &czImage{swaps: map[string]swapID{}}
	if err := s.readCzTable(root, has); err != nil {
		return err
	}
	if s.cz.files, err = groupVolumes(names); err != nil {
		return s.errorf("%v", err)
	}
	for part, d := range s.cz.files {
		for _, name := range d.vols {
			in, err := openIn(root, name)
			if err != nil {
				return s.errorf("its file %q cannot be opened: %v", name, err)
			}
			s.in = append(s.in, in)
			s.size += in.stat.Size()
			d.in = append(d.in, in)
		}
		s.cz.files[part] = d
	}
	return s.readSwaps(root, names)
}

func listDir(root *os.Root) ([]string, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(czMaxFiles)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && len(names) == czMaxFiles {
		err = fmt.Errorf("it holds %d files and more", czMaxFiles)
	}
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// small reads a small file of the folder; nil when there is none.
func (s *Source) small(root *os.Root, name string, limit int64) ([]byte, error) {
	in, err := openIn(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.errorf("its file %q cannot be opened: %v", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err = errors.Join(err, in.Close()); err != nil {
		return nil, fmt.Errorf("read %q of %q: %w", name, s.path, err)
	}
	if int64(len(b)) > limit {
		return nil, s.errorf("its file %q is longer than %d bytes", name, limit)
	}
	return b, nil
}

// readCzTable finds which disk it is and reads what there is of its partition table.
func (s *Source) readCzTable(root *os.Root, has func(string) bool) error {
	text, err := s.small(root, "disk", czMaxText)
	if err != nil {
		return err
	}
	switch disks := strings.Fields(string(text)); {
	case len(disks) == 0:
		return s.errorf("Clonezilla saved single partitions into it and not a disk (there is no file \"disk\"): save the whole disk with savedisk")
	case len(disks) > 1:
		return s.errorf("it holds %d disks (%s), but an image is one disk: save that one alone", len(disks), strings.Join(disks, ", "))
	case !czDevice.MatchString(disks[0]):
		return s.errorf("the disk's name %q is none that is known", disks[0])
	default:
		s.cz.disk = disks[0]
	}
	t, d := &s.cz.table, s.cz.disk
	for _, f := range []struct {
		name  string
		limit int64
		to    *[]byte
	}{
		{d + "-gpt-1st", 34 * czSector, &t.gpt}, {d + "-mbr", czSector, &t.mbr}, {d + "-pt.sf", czMaxText, &t.dump},
		{d + "-pt.parted", czMaxText, &t.parted}, {d + "-hidden-data-after-mbr", 1 << 30, nil},
	} {
		if f.to == nil { // may be long; what counts is its beginning
			t.hidden, err = s.beginning(root, f.name, hiddenMax)
		} else {
			*f.to, err = s.small(root, f.name, f.limit)
		}
		if err != nil {
			return err
		}
	}
	if has(d+"-gpt-2nd") && t.gpt == nil {
		return s.errorf("its file %q is missing", d+"-gpt-1st")
	}
	return nil
}

// beginning reads the first n bytes of a file of the folder; nil when there is none.
func (s *Source) beginning(root *os.Root, name string, n int64) ([]byte, error) {
	in, err := openIn(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.errorf("its file %q cannot be opened: %v", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(in, n))
	if err = errors.Join(err, in.Close()); err != nil {
		return nil, fmt.Errorf("read %q of %q: %w", name, s.path, err)
	}
	return b, nil
}
