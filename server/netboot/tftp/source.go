package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
)

// errNoOptions refuses a file of several blocks to a request without options: a
// request with options is answered by one small OACK and data flows only after
// its ACK has proven the address, but without options the first packet is data,
// sent up to four times at an address that may be forged (x112 was measured).
var errNoOptions = errors.New("this file needs the blksize option")

var errCut = errors.New("transfer was cut: the server ends or the host asked anew")

// source feeds one transfer and stops it when the server ends, or when the same
// host starts newer transfers.
type source struct {
	ctx     context.Context
	slot    *slot
	data    *bytes.Reader
	size    int
	rf      io.ReaderFrom
	checked bool
}

// Read is called by the library once per block, with a buffer of the block size.
func (s *source) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil || s.slot.cut() {
		return 0, errCut
	}
	if !s.checked {
		s.checked = true
		if s.size >= plainBlock && !acknowledged(s.rf, len(p)) {
			return 0, errNoOptions
		}
	}
	return s.data.Read(p)
}

// acknowledged reports whether the client has answered an OACK, so that its
// address is proven. The library keeps the options to itself and drops those
// it does not know before it sends the OACK; what is left in its map when the
// first block is asked for is what was acknowledged. Looking at the length of
// an unexported map is all that is done here; should the field ever go away,
// only a block size that differs from the plain one counts as proof
// (TestOptionProof holds the library to it).
func acknowledged(rf io.ReaderFrom, block int) bool {
	v := reflect.ValueOf(rf)
	if v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if f := v.Elem().FieldByName("opts"); f.IsValid() && f.Kind() == reflect.Map {
			return f.Len() > 0
		}
	}
	return block != plainBlock
}
