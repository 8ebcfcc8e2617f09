package partition

import (
	"sync"
	"time"
)

// A device that does not answer holds up whoever asks it for something. So background work that goes over logs does it side by side for logs that lie
// in different directories: what hangs then is what belongs to logs that have a segment on that device, and nothing else.

// logPlace is a set of directories: a log's home, and all in which it has segments.
type logPlace struct {
	home int    // index in Store.dirs
	dirs uint64 // a bit for each of them
}

// bit is d's in a set. Beyond 64 directories some share theirs, and wait for each other.
func (d *logDir) bit() uint64 { return 1 << (d.index % 64) }

// meets tells whether the two have a directory in common.
func (p logPlace) meets(o logPlace) bool {
	return p.dirs&o.dirs != 0
}

// placeOf tells in which directories l lies now.
func (s *Store) placeOf(l *Log) logPlace {
	p := logPlace{home: l.home.index, dirs: l.home.bit()}
	for _, seg := range l.view.Load().segs {
		p.dirs |= seg.dir.bit()
	}
	return p
}

// byPlace gives all logs, those that lie in the same directories together.
func (s *Store) byPlace() (groups []placedLogs) {
	at := map[logPlace]int{}
	for _, l := range s.Logs() {
		place := s.placeOf(l)
		i, ok := at[place]
		if !ok {
			i = len(groups)
			at[place] = i
			groups = append(groups, placedLogs{place: place})
		}
		groups[i].logs = append(groups[i].logs, l)
	}
	return groups
}

// placedLogs are logs that lie in the same directories.
type placedLogs struct {
	place logPlace
	logs  []*Log
}

// atWork are the places at which some work is being done. The zero value: none.
type atWork struct {
	mu     sync.Mutex
	places map[logPlace]bool
}

// begin is false while what has begun there is not done.
func (w *atWork) begin(p logPlace) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.places[p] {
		return false
	}
	if w.places == nil {
		w.places = map[logPlace]bool{}
	}
	w.places[p] = true
	return true
}

func (w *atWork) end(p logPlace) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.places, p)
}

// awaitAll waits until all are closed, no longer than most, and tells whether they are.
func awaitAll(dones []chan struct{}, most time.Duration) bool {
	late := time.NewTimer(most)
	defer late.Stop()
	for _, done := range dones {
		select {
		case <-done:
		case <-late.C:
			return false
		}
	}
	return true
}
