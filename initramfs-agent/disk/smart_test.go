package disk

import (
	"os"
	"strings"
	"testing"
	"unsafe"
)

// ata is sense data as libata makes it for ATA PASS-THROUGH with CK_COND.
func ata(form byte, mid, high byte) []byte {
	if form == 0x70 {
		b := make([]byte, 18)
		b[0], b[7], b[10], b[11], b[13] = 0x70, 10, mid, high, 0x1d
		return b
	}
	b := make([]byte, 22)
	b[0], b[1], b[3], b[7], b[8], b[9] = 0x72, 1, 0x1d, 14, 9, 12
	b[8+9], b[8+11], b[8+13] = mid, high, 0x50
	return b
}

func TestParseATA(t *testing.T) {
	before := ata(0x72, 0xf4, 0x2c) // an information descriptor stands before the status
	before = append(append(append([]byte{}, before[:8]...), 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0), before[8:]...)
	for _, tt := range []struct {
		name           string
		in             []byte
		known, failing bool
	}{
		{"good", ata(0x72, 0x4f, 0xc2), true, false},
		{"good, fixed", ata(0x70, 0x4f, 0xc2), true, false},
		{"failing", ata(0x72, 0xf4, 0x2c), true, true},
		{"failing, fixed", ata(0x70, 0xf4, 0x2c), true, true},
		{"deferred error bit", append([]byte{0xf2}, ata(0x72, 0xf4, 0x2c)[1:]...), true, true},
		{"another descriptor first", before, true, true},
		{"SMART off", ata(0x72, 0, 0), false, false},
		{"half", ata(0x72, 0xf4, 0xc2), false, false},
		{"invalid opcode", []byte{0x72, 5, 0x20, 0, 0, 0, 0, 0}, false, false},
		{"cut", ata(0x72, 0xf4, 0x2c)[:20], false, false},
		{"empty", nil, false, false},
		{"current error in fixed form", append([]byte{0x71}, ata(0x70, 0xf4, 0x2c)[1:]...), false, false},
	} {
		if h := parseATA(tt.in); h.Known != tt.known || h.Failing != tt.failing || (h.Text == "") != (h.Known && !h.Failing) {
			t.Errorf("%s: %+v", tt.name, h)
		}
	}
}

func TestParseNVMe(t *testing.T) {
	for bits, want := range map[byte]string{0: "", 2: "", 0x10: "", 1: "spare", 4: "reliability", 8: "read-only", 0xff: "spare"} {
		log := make([]byte, 512)
		log[0] = bits
		if h := parseNVMe(log); !h.Known || h.Failing != (want != "") || !strings.Contains(h.Text, want) {
			t.Errorf("warnings %#x: %+v", bits, h)
		}
	}
	if h := parseNVMe(make([]byte, 511)); h.Known {
		t.Errorf("a short log: %+v", h)
	}
}

// TestHealthUnknown: what cannot be asked is not known, and no failure.
func TestHealthUnknown(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	r := &Reader{fd: int(f.Fd())}
	for _, bus := range []string{"sata", "nvme", "virtio", ""} {
		if h := r.Health(bus); h.Known || h.Failing || h.Text == "" {
			t.Errorf("%s: %+v", bus, h)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// The kernel's own sizes, which stand in the numbers of the calls or in its headers.
	if n := unsafe.Sizeof(nvmeAdmin{}); n != 72 || nvmeIoctl>>16&0x3fff != 72 {
		t.Errorf("nvme_passthru_cmd has %d bytes", n)
	}
	if n := unsafe.Sizeof(sgIO{}); n != 88 {
		t.Errorf("sg_io_hdr has %d bytes", n)
	}
}

func FuzzHealth(f *testing.F) {
	f.Add(ata(0x72, 0xf4, 0x2c))
	f.Add(ata(0x70, 0x4f, 0xc2))
	f.Add([]byte{0x72, 0, 0, 0x1d, 0, 0, 0, 0, 0, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, h := range []Health{parseATA(b), parseNVMe(b)} {
			if h.Failing && (!h.Known || h.Text == "") {
				t.Fatalf("%+v", h)
			}
		}
	})
}
