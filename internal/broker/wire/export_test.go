package wire

import "time"

// HoldFor sets for how long a client may hold what others wait for.
func (s *Sender) HoldFor(d time.Duration) { s.holdFor = d }

// SendfileFrom forces the way of file ranges: 0 sends all of them with sendfile, a size above theirs copies them.
func (s *Sender) SendfileFrom(bytes int64) { s.sendfileFrom = bytes }

// MostCopies has the senders share a bound of their own on responses that hold a copy buffer.
func MostCopies(n int64, senders ...*Sender) {
	c := &copies{most: n}
	for _, s := range senders {
		s.copies = c
	}
}
