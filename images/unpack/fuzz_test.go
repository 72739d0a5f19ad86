package unpack

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"virtual-size": 104857600, "filename": "json:{}", "format": "qcow2", "format-specific": {"type": "qcow2", "data": {"corrupt": false}}}`))
	f.Add([]byte(`{"virtual-size": 512, "format": "vmdk", "format-specific": {"data": {"create-type": "monolithicSparse", "extents": [{"filename": "a"}, {"filename": "/b"}]}}}`))
	f.Add([]byte(`{"virtual-size": 512, "format": "qcow2", "encrypted": true, "backing-filename": "/etc/passwd", "snapshots": [{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		di, err := parseInfo(b)
		if err != nil {
			return
		}
		if di.VirtualSize <= 0 || di.VirtualSize%512 != 0 {
			t.Errorf("a disk of %d bytes", di.VirtualSize)
		}
		if di.refuse(Qcow2) == "" && (di.Backing != "" || di.FullBacking != "" || di.Specific.Data.DataFile != "" || di.Encrypted || di.Format != "qcow2") {
			t.Errorf("accepted: %+v", di)
		}
	})
}

func FuzzVMDK(f *testing.F) {
	f.Add([]byte("# Disk DescriptorFile\nCID=b640ee45\nparentCID=ffffffff\nRW 204800 SPARSE \"s-s001.vmdk\"\nRW 10 ZERO\n"))
	f.Add([]byte("RW 204800 FLAT \"../f-flat.vmdk\" 0\n"))
	f.Add([]byte("RW 9999999999999 FLAT \"f\" 9999999999999\r\nRDONLY 1 VMFS \"f\" 0 partitionUUID device\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseVMDK(b)
		if err != nil {
			return
		}
		for _, e := range d.extents {
			if e.size <= 0 || e.off < 0 || e.off > 1<<53 || strings.ContainsAny(e.file, "/\\") || e.file == ".." || e.file == "" && e.kind != "ZERO" {
				t.Errorf("accepted %+v", e)
			}
		}
		if n := d.size(); n <= 0 || n > vmdkMaxSectors*512 {
			t.Errorf("a disk of %d bytes", n)
		}
	})
}

// FuzzClonezillaNames lists file names, one a line.
func FuzzClonezillaNames(f *testing.F) {
	f.Add("sda1.ext4-ptcl-img.gz.aa\nsda1.ext4-ptcl-img.gz.ab\nsda2.dd-img\nsda2.dd-img.info\nclonezilla-img\nparts")
	f.Add("nvme0n1p3.ntfs-ptcl-img.zst\nnvme0n1p3.ntfs-ptcl-img.zst.aaa")
	f.Add("../sda1.ext4-ptcl-img.gz\nsda1.ext4-ptcl-img.gz.ac\nsda1.ntfs-img.aa")
	f.Fuzz(func(t *testing.T, text string) {
		names := strings.Split(text, "\n")
		got, err := groupVolumes(names)
		if err != nil {
			return
		}
		for part, d := range got {
			if len(d.vols) == 0 {
				t.Errorf("%q has no files", part)
			}
			for _, v := range d.vols {
				if !slices.Contains(names, v) || strings.Contains(v, "/") {
					t.Errorf("%q is not one of the names", v)
				}
			}
		}
	})
}

func FuzzDump(f *testing.F) {
	f.Add([]byte("label: dos\nlabel-id: 0x12345678\ndevice: /dev/sda\nunit: sectors\nsector-size: 512\n\n/dev/sda1 : start=        2048, size=       32768, type=83, bootable\n/dev/sda2 : start=       34816, size=       30720, type=5\n/dev/sda5 : start= 36864, size= 8192, type=82\n"))
	f.Add([]byte("# partition table of /dev/sda\nunit: sectors\n\n/dev/sda1 : start=     2048, size=   204800, Id=83, bootable\n/dev/sda2 : start=        0, size=        0, Id= 0\n"))
	f.Add([]byte("/dev/sda1 : start=99999999999, size=1, type=83\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDump(b, "sda")
		if err != nil {
			return
		}
		again, err := parseDump([]byte(d.script()), "sda")
		if err != nil {
			t.Fatalf("the script is not understood: %v\n%s", err, d.script())
		}
		if diff := cmp.Diff(d, again, cmp.AllowUnexported(mbrDump{}, mbrDumpPart{})); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzClonezillaTexts(f *testing.F) {
	f.Add([]byte("UUID=\"6b1f8a52-0c6e-4f0e-9a53-333333333333\"\nLABEL=\"swap\"\n"))
	f.Add([]byte("Model: ATA (scsi)\nDisk /dev/sda: 16777215s\nSector size (logical/physical): 512B/4096B\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := parseSwap(b); err == nil {
			if h := swapHeader(id, 1<<30); len(h) != swapPage || string(h[swapPage-10:]) != "SWAPSPACE2" {
				t.Errorf("header of %+v", id)
			}
		}
		if n, err := partedSize(b); err == nil && (n < 0 || n%czSector != 0) {
			t.Errorf("a disk of %d bytes", n)
		}
	})
}

func FuzzPartclone(f *testing.F) {
	h := append([]byte("partclone-image\x000.3.23\x00\x00\x00\x00\x00\x00\x00\x000002\xde\xc0EXTFS"), make([]byte, 100)...)
	binary.LittleEndian.PutUint64(h[52:], 64<<20)
	binary.LittleEndian.PutUint64(h[60:], 16<<10)
	binary.LittleEndian.PutUint32(h[84:], 4096)
	f.Add(h)
	f.Add(append([]byte("partclone-imageEXTFS\x00\x00\x00\x00\x00\x00\x00\x00\x00\x000001\x00\x00\x00\x10\x00\x00"), h[52:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if info, err := parsePartclone(b); err == nil && (info.device <= 0 || info.span <= 0 || info.used < 0 || info.used > info.span) {
			t.Errorf("accepted %+v", info)
		}
	})
}

// FuzzHeads feeds all that looks at headers.
func FuzzHeads(f *testing.F) {
	f.Add([]byte("QFI\xfb\x00\x00\x00\x03"), int64(1<<20))
	f.Add([]byte("KDMV\x01\x00\x00\x00"), int64(1024))
	f.Add(append(make([]byte, 64), 0x7f, 0x10, 0xda, 0xbe), int64(4096))
	f.Add([]byte("conectix\x00\x00\x00\x02"), int64(512))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x28\x00\x00\x00"), int64(64))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		r := bytes.NewReader(b)
		if _, err := recognise(r, int64(len(b))); err != nil {
			t.Errorf("recognise: %v", err)
		}
		head := make([]byte, 1024)
		copy(head, b)
		checkQcow2(head)
		checkVMDK(head)
		checkVDI(head, size)
		if _, err := checkVHD(r, int64(len(b))); err != nil && len(b) >= 512 {
			t.Errorf("checkVHD: %v", err)
		}
		if end, err := gptEnd(r, int64(len(b))); err == nil && (end < 0 || end > int64(len(b))) {
			t.Errorf("the disk of %d bytes ends at %d", len(b), end)
		}
		if n := xzDict(b); n < 0 || n > 1<<32 {
			t.Errorf("a dictionary of %d bytes", n)
		}
	})
}

// fuzzConn is a client that says what it is told to and counts what it gets.
type fuzzConn struct {
	io.Reader
	got int64
}

func (c *fuzzConn) Write(b []byte) (int, error) { c.got += int64(len(b)); return len(b), nil }

// strictReader fails the test on a read that leaves the file.
type strictReader struct {
	t    *testing.T
	size int64
}

func (r strictReader) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(b)) > r.size {
		r.t.Errorf("read of %d bytes at %d of %d", len(b), off, r.size)
	}
	return len(b), nil
}

func FuzzNBD(f *testing.F) {
	hello := binary.BigEndian.AppendUint32(nil, 3)
	option := func(o uint32, data string) []byte {
		b := binary.BigEndian.AppendUint64(nil, nbdOptMagic)
		b = binary.BigEndian.AppendUint32(b, o)
		return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
	}
	request := func(command uint16, off uint64, n uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, nbdReqMagic)
		b = binary.BigEndian.AppendUint16(b, 0)
		b = binary.BigEndian.AppendUint16(b, command)
		b = binary.BigEndian.AppendUint64(b, 77)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, off), n)
	}
	f.Add(slices.Concat(hello, option(8, ""), option(7, "\x00\x00\x00\x00\x00\x01\x00\x03"), request(0, 0, 512), request(1, 0, 4), request(0, 4096, 1), request(0, 1<<63, 99), request(2, 0, 0)))
	f.Add(slices.Concat(hello, option(6, ""), option(2, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		const size = 4096
		c := &fuzzConn{Reader: bytes.NewReader(b)}
		var read int64
		// Only what it does with the file counts; a client that talks nonsense gets an error.
		_ = serveNBD(c, strictReader{t, size}, size, func(n int64) { read += n })
		if requests := int64(len(b) / nbdRequestLen); read > requests*size || c.got < read {
			t.Errorf("%d bytes sent for %d requests", read, requests)
		}
	})
}

// TestNBDAnswers is the other side: what a client gets for each kind of request.
func TestNBDAnswers(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 64)
	request := func(command uint16, off uint64, n uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, nbdReqMagic)
		b = binary.BigEndian.AppendUint32(b, uint32(command))
		b = binary.BigEndian.AppendUint64(b, 42)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, off), n)
	}
	in := binary.BigEndian.AppendUint32(nil, 3)
	in = binary.BigEndian.AppendUint64(in, nbdOptMagic)
	in = binary.BigEndian.AppendUint32(in, nbdOptGo)
	in = binary.BigEndian.AppendUint32(in, 0)
	in = slices.Concat(in, request(nbdRead, 16, 4), request(1, 0, 0), request(nbdRead, 1020, 8), request(nbdDisc, 0, 0))
	c := struct {
		io.Reader
		*bytes.Buffer
	}{bytes.NewReader(in), &bytes.Buffer{}}
	rw := struct {
		io.Reader
		io.Writer
	}{c.Reader, c.Buffer}
	if err := serveNBD(rw, bytes.NewReader(content), int64(len(content)), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	out := c.Bytes()
	answer := func(code uint32, data string) []byte {
		b := binary.BigEndian.AppendUint32(nil, nbdRespMagic)
		b = binary.BigEndian.AppendUint32(b, code)
		return append(binary.BigEndian.AppendUint64(b, 42), data...)
	}
	want := slices.Concat(answer(0, "0123"), answer(nbdEPERM, ""), answer(nbdEINVAL, ""))
	if !bytes.HasSuffix(out, want) {
		t.Errorf("answers end with %q; want %q", out[max(0, len(out)-len(want)):], want)
	}
}
