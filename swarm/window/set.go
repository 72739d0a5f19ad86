// Package window decides, without sockets and clocks, what a child asks its
// parent next, how much of it, when a parent is slow, and who comes after it.
//
// Everything here is a pure function of its arguments or a small value with
// such methods; times are arguments. Called by swarm/peer, which owns the
// connections and the locking.
package window

import "math/bits"

// Set is a set of pieces 0..Len()-1. The zero value is an empty set of no
// pieces. It is not safe for concurrent use.
type Set struct {
	words []uint64
	n     int // pieces of the torrent
	count int // pieces in the set
	front int // lowest piece not in the set, n when full
}

// NewSet returns the empty set for a torrent of n pieces.
func NewSet(n int) *Set {
	return &Set{words: make([]uint64, (n+63)/64), n: n}
}

// Len is the number of pieces of the torrent.
func (s *Set) Len() int { return s.n }

// Count is the number of pieces in the set.
func (s *Set) Count() int { return s.count }

// Front is the lowest piece that is not in the set, Len when there is none.
func (s *Set) Front() int { return s.front }

// Full reports whether every piece is in the set.
func (s *Set) Full() bool { return s.count == s.n }

// Has reports whether piece i is in the set; false when i is out of range.
func (s *Set) Has(i int) bool {
	return i >= 0 && i < s.n && s.words[i/64]&(1<<(i%64)) != 0
}

// Add puts piece i into the set and reports whether it was not there before.
func (s *Set) Add(i int) bool {
	if i < 0 || i >= s.n || s.Has(i) {
		return false
	}
	s.words[i/64] |= 1 << (i % 64)
	s.count++
	if i == s.front {
		s.front = s.nextMissing(i + 1)
	}
	return true
}

// Remove takes piece i out of the set and reports whether it was there.
func (s *Set) Remove(i int) bool {
	if !s.Has(i) {
		return false
	}
	s.words[i/64] &^= 1 << (i % 64)
	s.count--
	s.front = min(s.front, i)
	return true
}

// Fill puts every piece into the set.
func (s *Set) Fill() {
	for i := range s.words {
		s.words[i] = ^uint64(0)
	}
	if r := s.n % 64; r != 0 {
		s.words[len(s.words)-1] = 1<<r - 1
	}
	s.count, s.front = s.n, s.n
}

// Bools returns one entry per piece, as the bitfield message wants it.
func (s *Set) Bools() []bool {
	out := make([]bool, s.n)
	for i := range out {
		out[i] = s.Has(i)
	}
	return out
}

// nextMissing is the lowest piece >= from that is not in the set.
func (s *Set) nextMissing(from int) int {
	for w := from / 64; w < len(s.words); w++ {
		free := ^s.words[w]
		if w == from/64 {
			free &^= 1<<(from%64) - 1
		}
		if free != 0 {
			return min(w*64+bits.TrailingZeros64(free), s.n)
		}
	}
	return s.n
}

// obtainable calls f for every piece that source has and have lacks, in
// ascending order, until f returns false.
func obtainable(have, source *Set, f func(piece int) bool) {
	if have.n != source.n {
		return
	}
	for w := have.front / 64; w < len(have.words); w++ {
		for m := source.words[w] &^ have.words[w]; m != 0; m &= m - 1 {
			if !f(w*64 + bits.TrailingZeros64(m)) {
				return
			}
		}
	}
}

// Obtainable counts the pieces that source has and have lacks, up to limit,
// without those that are barred from that source; barred may be nil.
func Obtainable(have, source *Set, limit int, barred func(piece int) bool) int {
	n := 0
	obtainable(have, source, func(p int) bool {
		if barred == nil || !barred(p) {
			n++
		}
		return n < limit
	})
	return min(n, limit)
}
