package selftest

import (
	"context"
	"crypto/sha1" //nolint:gosec // BEP 3 piece hashes are SHA-1: the test does what the data plane does
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// kind is a family of patterns.
type kind int

const (
	address kind = iota // every word is its own number: address lines
	solid               // the same word everywhere
	walking             // one bit, at another place in every word
	noise               // no two words alike
)

// pattern is what is written: a word for every word's number.
type pattern struct {
	name string
	kind kind
	k    uint64
}

const (
	word = 8                     // bytes
	odd  = 0x9e37_79b9_7f4a_7c15 // 2^64 / golden ratio, the step of splitmix64
)

// words are the words of a pattern from number w on: each one follows from the
// one before. Fast, because all of the machine's memory goes through it.
func (p pattern) words(w uint64) (v uint64, rotate int, step uint64) {
	switch p.kind {
	case address:
		return w, 0, 1
	case walking:
		return 1 << ((w + p.k) & 63), 1, 0
	case noise:
		return w + p.k, 0, 1 // before mix
	}
	return p.k, 0, 0
}

// mix is splitmix64's output function.
func mix(w uint64) uint64 {
	w *= odd
	w = (w ^ w>>30) * 0xbf58_476d_1ce4_e5b9
	w = (w ^ w>>27) * 0x94d0_49bb_1331_11eb
	return w ^ w>>31
}

// patterns in the order of what they find per second: each one is also tested
// inverted.
func patterns() []pattern {
	out := []pattern{{"address", address, 0}, {"solid", solid, 0}, {"checkerboard", solid, 0x5555_5555_5555_5555}, {"random", noise, 1}}
	for k := range uint64(64) {
		out = append(out, pattern{"walking bit", walking, k})
	}
	return out
}

// sweep writes a pattern everywhere, reads it and writes its inverse upwards,
// and reads that downwards. All of the memory is written before any of it is
// read: what is read comes from the memory and not from a processor's cache, as
// far as the memory under test is larger than that.
func sweep(ctx context.Context, m Memory, p pattern) error {
	n := m.Blocks()
	err := each(ctx, n, func(i int) error {
		fill(m.Block(i), first(i), p, 0)
		return nil
	})
	if err != nil {
		return err
	}
	err = each(ctx, n, func(i int) error {
		if err := check(m.Block(i), first(i), p, 0); err != nil {
			return err
		}
		fill(m.Block(i), first(i), p, ^uint64(0))
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, n, func(i int) error {
		i = n - 1 - i
		return check(m.Block(i), first(i), p, ^uint64(0))
	})
}

// first is the number of the first word of block i.
func first(i int) uint64 { return uint64(i) * (BlockSize / word) } //nolint:gosec // blocks are counted from 0

// fill writes the pattern, inverted by flip, from word number w on.
func fill(b []byte, w uint64, p pattern, flip uint64) {
	v, rotate, step := p.words(w)
	if p.kind == noise {
		for ; len(b) >= word; b = b[word:] {
			binary.LittleEndian.PutUint64(b, mix(v)^flip)
			v += step
		}
		return
	}
	for ; len(b) >= word; b = b[word:] {
		binary.LittleEndian.PutUint64(b, v^flip)
		v = bits.RotateLeft64(v, rotate) + step
	}
}

// check reads what fill wrote.
func check(b []byte, w uint64, p pattern, flip uint64) error {
	v, rotate, step := p.words(w)
	for n := len(b); len(b) >= word; b = b[word:] {
		want := v
		if p.kind == noise {
			want = mix(v)
		}
		if got := binary.LittleEndian.Uint64(b); got != want^flip {
			return &BadError{Test: p.name, Off: int64(w)*word + int64(n-len(b)), Want: want ^ flip, Got: got} //nolint:gosec // below maxBytes
		}
		v = bits.RotateLeft64(v, rotate) + step
	}
	return nil
}

// Hashes of the known cell, taken by another program once (sha1sum, sha256sum):
// this machine's word for them would prove nothing.
const (
	knownSHA1   = "c7e73db7f2d664d1e5efda4c3d5558be5d3e1e98"
	knownSHA256 = "ce4074a021f5c9cd59efc59163ecbc6965c434abe307b10f3428d0ae491ec675"
)

// knownCell makes the known cell: the words of the random pattern.
func knownCell() []byte {
	b := make([]byte, BlockSize)
	fill(b, 0, pattern{kind: noise}, 0)
	return b
}

// hashes copies the known cell to one block after the other and hashes it there,
// as pieces are hashed and as the disk is read back.
func hashes(ctx context.Context, m Memory, rounds int) error {
	cell := knownCell()
	for n := m.Blocks(); rounds > 0; rounds -= n { // no block twice at a time
		err := each(ctx, min(n, rounds), func(i int) error {
			copy(m.Block(i), cell)
			b := m.Block(i)
			s1, s256 := sha1.Sum(b), sha256.Sum256(b) //nolint:gosec // see the import
			if hex.EncodeToString(s1[:]) != knownSHA1 || hex.EncodeToString(s256[:]) != knownSHA256 {
				return &BadError{Test: "hash", Off: int64(i) * BlockSize}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
