package groups

import "time"

// A shard's lock is held while a record is written, which a device may not answer. Clients of its groups wait for that. Who looks at all shards,
// metrics above all, does not.
const (
	lookWait    = time.Second           // for all shards
	leastWait   = 20 * time.Millisecond // for each, when others have used that up: it may just be busy
	mostLookers = 8                     // that wait for one shard at a time
)

// look runs fn with the shard's lock, if that is to be had in time; until is when whoever looks wants to be done.
func (s *shard) look(until time.Time, fn func()) bool {
	if !s.mu.TryLock() && !s.lockSoon(max(time.Until(until), leastWait)) {
		return false
	}
	defer s.mu.Unlock()
	fn()
	return true
}

// lockSoon is false when the lock was not to be had within wait.
func (s *shard) lockSoon(wait time.Duration) bool {
	if s.lookers.Add(1) > mostLookers {
		s.lookers.Add(-1)
		return false
	}
	locked, left := make(chan struct{}), make(chan struct{})
	go func() {
		s.mu.Lock()
		s.lookers.Add(-1)
		select {
		case locked <- struct{}{}: // it is the asker's now
		case <-left:
			s.mu.Unlock()
		}
	}()
	patience := time.NewTimer(wait)
	defer patience.Stop()
	select {
	case <-locked:
		return true
	case <-patience.C:
		close(left)
		return false
	}
}
