package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The server side of the NBD protocol, read-only, for one program that we started (the Network Block Device protocol,
// doc/proto.md). A program that reads its image this way opens no file of ours, needs no right to the image, and cannot
// follow what an image names: the file behind the socket is the only one.
const (
	nbdMagic     = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOptMagic  = 0x49484156454f5054 // "IHAVEOPT"
	nbdRepMagic  = 0x0003e889045565a9
	nbdReqMagic  = 0x25609513
	nbdRespMagic = 0x67446698

	nbdFixed    = 1 // handshake flags: options that are not known can be declined,
	nbdNoZeroes = 2 // and no padding

	nbdOptAbort = 2 // options
	nbdOptInfo  = 6
	nbdOptGo    = 7

	nbdRepAck     = 1 // answers to options
	nbdRepInfo    = 3
	nbdRepUnsup   = 1<<31 | 1
	nbdInfoExport = 0

	nbdHasFlags = 1 // of the export
	nbdReadOnly = 2

	nbdRead = 0 // commands
	nbdDisc = 2

	nbdEPERM  = 1 // errors
	nbdEIO    = 5
	nbdEINVAL = 22

	nbdMaxOption  = 4 << 10  // bytes of data with an option
	nbdMaxOptions = 64       // before the export is chosen
	nbdMaxRead    = 32 << 20 // bytes of one request, the limit that clients assume
	nbdRequestLen = 28
	nbdOptionLen  = 16
)

var errNBD = errors.New("NBD client")

// serveNBD answers one client until it says goodbye or c ends. Bytes that the client has read are told to read. The
// client may be in the hands of whoever made the image: nothing it says is trusted.
func serveNBD(c io.ReadWriter, file io.ReaderAt, size int64, read func(int64)) error {
	in := bufio.NewReader(c)
	if done, err := nbdHandshake(in, c, size); done || err != nil {
		return err
	}
	var buf []byte
	var req [nbdRequestLen]byte
	for {
		if _, err := io.ReadFull(in, req[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("%w: read a request: %w", errNBD, err)
		}
		if binary.BigEndian.Uint32(req[:]) != nbdReqMagic {
			return fmt.Errorf("%w: no request", errNBD)
		}
		command, off, n := binary.BigEndian.Uint16(req[6:]), binary.BigEndian.Uint64(req[16:]), int(binary.BigEndian.Uint32(req[24:]))
		reply := binary.BigEndian.AppendUint32(buf[:0], nbdRespMagic)
		code := uint32(0)
		switch {
		case command == nbdDisc:
			return nil
		case command != nbdRead:
			code, n = nbdEPERM, 0
		case n > nbdMaxRead || off > uint64(size) || uint64(n) > uint64(size)-off:
			code, n = nbdEINVAL, 0
		}
		reply = binary.BigEndian.AppendUint32(reply, code)
		reply = append(reply, req[8:16]...)
		head := len(reply)
		reply = append(reply, make([]byte, n)...)
		if n > 0 {
			if _, err := file.ReadAt(reply[head:], int64(off)); err != nil {
				binary.BigEndian.PutUint32(reply[4:], nbdEIO)
				reply, n = reply[:head], 0
			}
		}
		if _, err := c.Write(reply); err != nil {
			return fmt.Errorf("%w: answer: %w", errNBD, err)
		}
		read(int64(n))
		buf = reply
	}
}

// nbdHandshake ends when the client has chosen the export; done means that it went away instead.
func nbdHandshake(in io.Reader, out io.Writer, size int64) (done bool, err error) {
	hello := binary.BigEndian.AppendUint64(nil, nbdMagic)
	hello = binary.BigEndian.AppendUint64(hello, nbdOptMagic)
	hello = binary.BigEndian.AppendUint16(hello, nbdFixed|nbdNoZeroes)
	if _, err := out.Write(hello); err != nil {
		return false, fmt.Errorf("%w: greet: %w", errNBD, err)
	}
	var b [nbdOptionLen]byte
	if _, err := io.ReadFull(in, b[:4]); err != nil { // flags
		return false, fmt.Errorf("%w: read the flags: %w", errNBD, err)
	}
	for range nbdMaxOptions {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return false, fmt.Errorf("%w: read an option: %w", errNBD, err)
		}
		option, n := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
		if binary.BigEndian.Uint64(b[:]) != nbdOptMagic || n > nbdMaxOption {
			return false, fmt.Errorf("%w: no option", errNBD)
		}
		if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
			return false, fmt.Errorf("%w: read an option: %w", errNBD, err)
		}
		var out1 []byte
		switch option {
		case nbdOptAbort:
			return true, nil
		case nbdOptGo, nbdOptInfo:
			info := binary.BigEndian.AppendUint16(nil, nbdInfoExport)
			info = binary.BigEndian.AppendUint64(info, uint64(size))
			info = binary.BigEndian.AppendUint16(info, nbdHasFlags|nbdReadOnly)
			out1 = append(nbdReply(option, nbdRepInfo, info), nbdReply(option, nbdRepAck, nil)...)
		default: // structured replies among others: clients go on without
			out1 = nbdReply(option, nbdRepUnsup, nil)
		}
		if _, err := out.Write(out1); err != nil {
			return false, fmt.Errorf("%w: answer an option: %w", errNBD, err)
		}
		if option == nbdOptGo {
			return false, nil
		}
	}
	return false, fmt.Errorf("%w: more than %d options", errNBD, nbdMaxOptions)
}

func nbdReply(option, kind uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, nbdRepMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}
