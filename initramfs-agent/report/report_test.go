package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/initramfs-agent/disk"
	"labswarm/initramfs-agent/readback"
	"labswarm/swarm/peer"
)

func TestCode(t *testing.T) {
	write := &disk.WriteError{Op: "write", Disk: "sda", Off: 1 << 20, Err: unix.EIO}
	for _, tt := range []struct {
		err  error
		code string
		text string // part of the sentence
	}{
		{write, api.CodeDiskWrite, "sector 2048"},
		{&peer.StorageError{Op: "write", Piece: 3, Err: write}, api.CodeDiskWrite, "input/output error"},
		{&disk.ReadError{Disk: "sda", Off: 512, Err: unix.EIO}, api.CodeDiskRead, "sector 1"},
		{&api.Fault{Code: api.CodeVerify, Text: "differs"}, api.CodeVerify, "differs"},
		{fmt.Errorf("wrapped: %w", &api.Fault{Code: api.CodeAmbiguous, Text: "two"}), api.CodeAmbiguous, "two"},
		{&order.RefusedError{Rule: order.WrongDisk, Detail: "x"}, api.CodeDiskNotFound, "x"},
		{&order.RefusedError{Rule: order.WrongSector}, api.CodeDiskSector, ""},
		{&order.RefusedError{Rule: order.TooSmall}, api.CodeDiskTooSmall, ""},
		{&order.RefusedError{Rule: order.WrongImage}, api.CodeBadImage, ""},
		{&order.RefusedError{Rule: order.Expired}, api.CodeBadOrder, ""},
		{&peer.CorruptError{Piece: 1, Attempts: 3}, api.CodeCorrupt, "memory"},
		{errors.New("anything else"), api.CodeCrash, "anything else"},
		{errors.New(strings.Repeat("x", 100_000)), api.CodeCrash, ""},
	} {
		r := Failed(tt.err, readback.Proof{}, api.Result{OrderID: "o", OK: true, Readback: "r"})
		if r.Code != tt.code || !strings.Contains(r.Error, tt.text) || r.OK || r.Readback != "" || r.OrderID != "o" || len(r.Error) > 4096 {
			t.Errorf("%v: %+v; want code %s", tt.err, r, tt.code)
		}
	}
}

func TestDoneWantsProof(t *testing.T) {
	if r, err := Done(readback.Proof{}, api.Result{}); err == nil || r.OK {
		t.Errorf("Done without a proof = %+v, %v", r, err)
	}
}

func TestReadOut(t *testing.T) {
	seen := map[string]bool{}
	for i := range 200 {
		c := ReadOut("DW", fmt.Sprint(i))
		if len(c) != 7 || c[:3] != "DW-" || strings.ContainsAny(c[3:], "01OIL5S8B") {
			t.Fatalf("ReadOut = %q", c)
		}
		seen[c] = true
	}
	if len(seen) < 190 || !seen[ReadOut("DW", "1")] {
		t.Errorf("%d different codes of 200, or not the same twice", len(seen))
	}
}
