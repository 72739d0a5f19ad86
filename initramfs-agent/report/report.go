// Package report turns the end of a deployment into the api.Result the server
// stores. A good result can be made from a readback.Proof only; a test checks
// that OK is set nowhere else in the agent.
package report

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/contact"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/readback"
	"labswarm/swarm/peer"
)

// Done makes the result of a disk that was read back and found right. base
// carries the identities and counters.
func Done(proof readback.Proof, base api.Result) (api.Result, error) {
	if !proof.Valid() {
		return api.Result{}, errors.New("make result: the disk has not been read back")
	}
	base.OK, base.Code, base.Error = true, "", ""
	base.Readback, base.CellsVerified = proof.Digest(), proof.Cells()
	return base, nil
}

// Failed makes the result of a deployment that ended with err. proof, which may
// be the zero one, is of a disk that was right before that: the next attempt
// has little to write.
func Failed(err error, proof readback.Proof, base api.Result) api.Result {
	base.OK, base.Readback, base.CellsVerified = false, proof.Digest(), proof.Cells()
	base.Code, base.Error = Code(err)
	base.ReadOut, base.Fault = ReadOut(base.Code, base.BootID), fault(err)
	return base
}

// Code returns the stable code of an error and its sentence for people.
func Code(err error) (code, text string) {
	var f *api.Fault
	var w *disk.WriteError
	var r *disk.ReadError
	var o *order.RefusedError
	var c *peer.CorruptError
	switch {
	case errors.As(err, &f):
		return f.Code, clip(f.Error())
	case errors.As(err, &w):
		return api.CodeDiskWrite, clip(w.Error() + ". The disk refused a write; test or replace it")
	case errors.As(err, &r):
		return api.CodeDiskRead, clip(r.Error() + ". The disk does not answer; test or replace it")
	case errors.As(err, &o):
		return orderCode(o.Rule), clip(o.Error())
	case errors.As(err, &c):
		return api.CodeCorrupt, clip(c.Error() + "; its memory has not failed the test, which proves little: test it for a night, then look at the network card")
	case contact.WrongKey(err):
		return api.CodeServerKey, clip(err.Error())
	}
	return api.CodeCrash, clip(err.Error())
}

func orderCode(rule order.Reason) string {
	switch rule {
	case order.WrongDisk:
		return api.CodeDiskNotFound
	case order.WrongSector:
		return api.CodeDiskSector
	case order.TooSmall:
		return api.CodeDiskTooSmall
	case order.WrongImage:
		return api.CodeBadImage
	}
	return api.CodeBadOrder
}

// clip keeps a result within the server's limit.
func clip(s string) string { return s[:min(len(s), 4<<10)] }

// fault is what the disk refused, nil when it refused nothing.
func fault(err error) *api.DiskFault {
	var w *disk.WriteError
	var r *disk.ReadError
	var f api.DiskFault
	switch {
	case errors.As(err, &w):
		f = api.DiskFault{Op: w.Op, Off: w.Off}
	case errors.As(err, &r):
		f = api.DiskFault{Op: "read", Off: r.Off}
	default:
		return nil
	}
	f.Sector = f.Off / 512
	var no syscall.Errno
	if errors.As(err, &no) {
		f.Errno = unix.ErrnoName(no)
	}
	return &f
}

// ReadOut is the code a person reads to the lab office: the class and four
// characters that tell this failure from others of its class.
func ReadOut(class, bootID string) string {
	var n uint32 = 2166136261 // FNV-1a
	for _, b := range []byte(class + bootID) {
		n = (n ^ uint32(b)) * 16777619
	}
	var s [4]byte
	for i := range s {
		s[i] = api.ReadOutAlphabet[n%uint32(len(api.ReadOutAlphabet))]
		n /= uint32(len(api.ReadOutAlphabet))
	}
	return fmt.Sprintf("%s-%s", class, s[:])
}
