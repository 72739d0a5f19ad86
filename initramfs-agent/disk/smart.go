package disk

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Health is what a disk says of itself. A disk that cannot be asked is not Known, which is no reason against it.
type Health struct {
	Known, Failing bool
	Text           string // why it fails, for people
}

const healthTimeout = 5000 // ms for one question

// Health asks the disk for its overall state: SMART RETURN STATUS of an ATA disk, the health log of an NVMe one. Both only
// read. bus is api.Disk.Bus; virtual disks and others are not asked.
func (r *Reader) Health(bus string) Health {
	switch bus {
	case "sata":
		sense, err := r.askATA()
		if err != nil {
			return Health{Text: err.Error()}
		}
		return parseATA(sense)
	case "nvme":
		log, err := r.askNVMe()
		if err != nil {
			return Health{Text: err.Error()}
		}
		return parseNVMe(log)
	}
	return Health{Text: fmt.Sprintf("disks on %q are not asked", bus)}
}

// sgIO is struct sg_io_hdr (scsi/sg.h).
type sgIO struct {
	id, direction            int32
	cmdLen, senseLen         uint8
	iovecs                   uint16
	dataLen                  uint32
	data, cmd, sense         unsafe.Pointer
	timeout, flags           uint32 // ms
	pack                     int32
	user                     unsafe.Pointer
	status, masked, msg, got uint8 // got: bytes of sense data
	host, driver             uint16
	resid                    int32
	duration, info           uint32
}

// nvmeAdmin is struct nvme_passthru_cmd (linux/nvme_ioctl.h).
type nvmeAdmin struct {
	opcode, flags    uint8
	_                uint16
	namespace        uint32
	cdw2, cdw3       uint32
	metadata         uint64
	addr             uint64
	metaLen, dataLen uint32
	cdw10            uint32
	_                [5]uint32 // cdw11 to cdw15
	timeout, result  uint32
}

const (
	sgIoctl   = 0x2285     // SG_IO
	nvmeIoctl = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD
)

// askATA sends ATA PASS-THROUGH (16) with SMART RETURN STATUS (SAT-3 12.2.2, ACS-3 7.48.8) and returns the sense data,
// in which the disk's registers come back.
func (r *Reader) askATA() ([]byte, error) {
	cmd := new([16]byte)
	sense := new([64]byte)
	// Protocol "non-data", CK_COND; feature RETURN STATUS, and the signature in LBA mid and high.
	cmd[0], cmd[1], cmd[2], cmd[4], cmd[10], cmd[12], cmd[14] = 0x85, 3<<1, 1<<5, 0xda, 0x4f, 0xc2, 0xb0
	h := &sgIO{id: 'S', direction: -1, cmdLen: 16, senseLen: uint8(len(sense)), cmd: unsafe.Pointer(cmd), sense: unsafe.Pointer(sense), timeout: healthTimeout}
	err := r.ask(sgIoctl, unsafe.Pointer(h))
	runtime.KeepAlive(cmd)
	if err != nil {
		return nil, err
	}
	if h.host != 0 {
		return nil, fmt.Errorf("the controller answers %#x", h.host)
	}
	return sense[:min(int(h.got), len(sense))], nil
}

// askNVMe fetches the log page SMART / Health Information (NVM Express Base 2.0, 5.16.1.3) of the whole disk.
func (r *Reader) askNVMe() ([]byte, error) {
	log, err := Buffer(512) // outside Go's heap: its address stays
	if err != nil {
		return nil, err
	}
	defer FreeBuffer(log) //nolint:errcheck // only address space
	c := &nvmeAdmin{opcode: 2, namespace: 0xffffffff, addr: uint64(uintptr(unsafe.Pointer(&log[0]))), dataLen: 512, cdw10: (512/4-1)<<16 | 2, timeout: healthTimeout}
	if err := r.ask(nvmeIoctl, unsafe.Pointer(c)); err != nil {
		return nil, err
	}
	return append([]byte{}, log...), nil
}

// ask sends one of the two questions above.
func (r *Reader) ask(op uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(r.fd), op, uintptr(arg))
	switch {
	case errno != 0:
		return errno
	case op != sgIoctl && op != nvmeIoctl:
		return errors.New("unknown question")
	}
	return nil
}

// parseATA reads the registers in sense data: descriptor or fixed format (SAT-3 12.2.2.6, 12.2.2.7).
func parseATA(b []byte) Health {
	if len(b) < 8 {
		return Health{Text: "no sense data"}
	}
	const available = 0x1d // ATA PASS THROUGH INFORMATION AVAILABLE, with ASC 0
	var mid, high byte
	switch b[0] & 0x7f {
	case 0x72:
		if b[2] != 0 || b[3] != available {
			return Health{Text: fmt.Sprintf("sense %02x/%02x", b[2], b[3])}
		}
		d := b[8:]
		for len(d) >= 2 && d[0] != 9 {
			d = d[min(2+int(d[1]), len(d)):]
		}
		if len(d) < 14 || d[1] != 12 {
			return Health{Text: "no ATA status in the sense data"}
		}
		mid, high = d[9], d[11]
	case 0x70:
		if len(b) < 14 || b[12] != 0 || b[13] != available {
			return Health{Text: "sense data of another kind"}
		}
		mid, high = b[10], b[11]
	default:
		return Health{Text: fmt.Sprintf("sense data of form %#x", b[0])}
	}
	switch {
	case mid == 0x4f && high == 0xc2:
		return Health{Known: true}
	case mid == 0xf4 && high == 0x2c:
		return Health{Known: true, Failing: true, Text: "its own overall-health test says FAILED (SMART)"}
	}
	return Health{Text: fmt.Sprintf("registers %02x %02x", mid, high)}
}

// parseNVMe reads the critical warnings of a health log. A temperature is no reason not to read a disk.
func parseNVMe(b []byte) Health {
	if len(b) < 512 {
		return Health{Text: "a health log that is too short"}
	}
	var why []string
	for _, w := range []struct {
		bit  byte
		text string
	}{{1, "its spare blocks are used up"}, {4, "its reliability is degraded"}, {8, "it has become read-only"}} {
		if b[0]&w.bit != 0 {
			why = append(why, w.text)
		}
	}
	if len(why) == 0 {
		return Health{Known: true}
	}
	return Health{Known: true, Failing: true, Text: "its own health log (SMART) says: " + strings.Join(why, ", ")}
}
