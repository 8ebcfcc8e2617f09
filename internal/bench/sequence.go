package bench

import "slices"

// span is the sequence numbers [from, to).
type span struct{ from, to int64 }

// maxSpans bounds what is remembered of holes, 16 MiB of them; numbers in holes beyond that stay counted as missing. A broker that refuses
// batches for a minute makes thousands, and what it loses afterwards must still be found.
const maxSpans = 1 << 20

// sequence checks one partition of one reader: numbers 0, 1, 2… must come once each and in order.
type sequence struct {
	next       int64
	holes      []span // skipped so far, in order
	read       int64  // different numbers that came
	duplicates int64
	reordered  int64 // came after a later one
	forgotten  int64 // numbers in holes that are not remembered
}

// see takes the next number that came. It tells whether the number is new.
func (s *sequence) see(n int64) bool {
	switch {
	case n == s.next:
		s.next++
	case n > s.next:
		if len(s.holes) < maxSpans {
			s.holes = append(s.holes, span{s.next, n})
		} else {
			s.forgotten += n - s.next
		}
		s.next = n + 1
	case s.fillHole(n):
		s.reordered++
	default:
		s.duplicates++
		return false
	}
	s.read++
	return true
}

func (s *sequence) fillHole(n int64) bool {
	i, found := search(s.holes, n)
	if !found {
		return false
	}
	h := s.holes[i]
	rest := make([]span, 0, 2)
	if h.from < n {
		rest = append(rest, span{h.from, n})
	}
	if n+1 < h.to {
		rest = append(rest, span{n + 1, h.to})
	}
	s.holes = slices.Replace(s.holes, i, i+1, rest...)
	return true
}

// search finds the span that holds n; spans are in order and do not overlap.
func search(spans []span, n int64) (int, bool) {
	return slices.BinarySearchFunc(spans, n, func(h span, n int64) int {
		switch {
		case h.to <= n:
			return -1
		case h.from > n:
			return 1
		}
		return 0
	})
}

// missing calls fn with the numbers below end that never came.
func (s *sequence) missing(end int64, fn func(span)) {
	for _, h := range s.holes {
		if h.from < end {
			fn(span{h.from, min(h.to, end)})
		}
	}
	if s.next < end {
		fn(span{s.next, end})
	}
}

// numbers is a set of sequence numbers that were added in about rising order.
type numbers struct{ spans []span }

func (s *numbers) add(n int64) {
	for i := len(s.spans) - 1; i >= 0; i-- {
		h := &s.spans[i]
		switch {
		case n >= h.from && n < h.to:
			return
		case n == h.to:
			h.to++
			return
		case n > h.to:
			s.spans = slices.Insert(s.spans, i+1, span{n, n + 1})
			return
		}
	}
	s.spans = slices.Insert(s.spans, 0, span{n, n + 1})
}

func (s *numbers) has(n int64) bool {
	_, found := search(s.spans, n)
	return found
}
