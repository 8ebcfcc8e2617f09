package partition

import (
	"slices"
	"sync"
)

// preparation brings what a read needs besides the log's bytes (the descriptor, the index) into memory, off the goroutine
// that answers fetches: on a busy disk opening a file waits like any other read.
type preparation struct {
	mu      sync.Mutex
	state   prepState
	watches []*Watch
}

type prepState uint8

const (
	prepIdle    prepState = iota
	prepRunning           // a goroutine of the device's queue is at it
	prepDone              // it has ended; the next read goes on, whatever came of it
)

// prepared tells whether s can be looked up without a device. When not, that is begun and w (may be nil) will be notified.
// After each attempt one read goes on regardless: it meets the error, if there was one, and a file cache that is too small
// for its readers slows them down and does not stop them. The caller has s acquired.
func (s *logSegment) prepared(w *Watch) bool {
	if s.r.Ready() {
		return true
	}
	p := &s.prep
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == prepDone {
		p.state = prepIdle
		return true
	}
	if p.state == prepIdle {
		if !s.r.Acquire() { // retired: its users may finish
			return true
		}
		if !s.dir.cold.aside(s.prepare) {
			s.r.Release()
			return true
		}
		p.state = prepRunning
	}
	if w != nil {
		p.watches = append(p.watches, w)
	}
	return false
}

// prepare runs aside and gives back the Acquire made for it.
func (s *logSegment) prepare() {
	opened := s.dir.opensOnWay.begin(s.dir.cold.now())
	err := s.r.Prepare() // whoever reads next gets the same error
	if f, err := s.r.File(); err == nil {
		s.locate(f)
	}
	opened()
	s.dir.noteError("open", err)
	s.r.Release()
	p := &s.prep
	p.mu.Lock()
	watches := p.watches
	p.watches = nil
	p.state = prepDone
	if err == nil && len(watches) == 0 {
		p.state = prepIdle
	}
	p.mu.Unlock()
	for _, w := range watches {
		w.Notify()
	}
}

// fills are the ranges of a segment that are being read into the page cache. Their pages count as resident from the moment
// they are asked for, so whoever wants them hot has to be told that they are not there yet.
type fills struct {
	mu     sync.Mutex
	ranges []*byteRange
}

type byteRange struct{ pos, end int64 }

// begin notes [pos, pos+n) until end is called.
func (f *fills) begin(pos, n int64) (end func()) {
	r := &byteRange{pos, pos + n}
	f.mu.Lock()
	f.ranges = append(f.ranges, r)
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		i := slices.Index(f.ranges, r)
		f.ranges = slices.Delete(f.ranges, i, i+1)
		f.mu.Unlock()
	}
}

// before is how many of the n bytes from pos on come before a range that is being read.
func (f *fills) before(pos, n int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.ranges {
		if r.pos < pos+n && r.end > pos {
			n = max(0, r.pos-pos)
		}
	}
	return n
}
