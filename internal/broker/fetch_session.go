package broker

import (
	"container/list"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/broker/wire"
)

// Fetch sessions (KIP-227): the server remembers the partitions a consumer fetches and what it last told it, so that the
// consumer sends only changes and gets only changes back.
//
//	id 0, epoch -1  no session         id n, epoch -1  end session n, then as without one
//	id 0, epoch 0   make one           id n, epoch 0   end session n, make another
//	id n, epoch e   incremental; e must be the one after the last
//
// The cache is bounded in sessions and in partitions (a hostile client could otherwise fill the memory with names). When
// it is full, the session that was used longest ago makes room if it has not been used for evictAfter; else the client is
// answered session id 0 and goes on with full fetches, which is always legal.

const (
	// evictAfter is Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS.
	evictAfter = 2 * time.Minute
	// maxSessionPartitions bounds the partitions of all sessions together, about 150 bytes each.
	maxSessionPartitions = 500_000
	finalEpoch           = -1
	initialEpoch         = 0
)

// sessionKey names a partition in a session: by topic name before v13, by id from v13 on.
type sessionKey struct {
	topic     string
	id        [16]byte
	partition int32
}

// fetchTarget is one partition that a fetch looks at: a copy, because a session may be changed by another connection.
type fetchTarget struct {
	wire.FetchPartition
	member *sessionPartition // nil without a session
}

// sessionPartition is a partition in a session, and what the client was last told of it: -1 before the first time and
// after an error, which no healthy partition equals, so that the client is told again.
type sessionPartition struct {
	want          wire.FetchPartition
	place         *list.Element // in the rotation
	highWatermark int64
	lastStable    int64
	logStart      int64
}

func keyOf(p *wire.FetchPartition) sessionKey { return sessionKey{p.Topic, p.TopicID, p.Partition} }

// fetchSession is guarded by its own mutex; two connections may claim one session.
type fetchSession struct {
	id    int32
	byID  bool // topics are named by id
	used  time.Time
	place *list.Element // in the cache's order of use
	size  int           // partitions counted in the cache, guarded by the cache

	mu         sync.Mutex
	epoch      int32 // the one expected next
	partitions map[sessionKey]*sessionPartition
	rotation   list.List // of *sessionPartition; those that were served go to the back
}

// sessionCache holds the sessions.
type sessionCache struct {
	slots     int
	evictions prometheus.Counter

	mu         sync.Mutex
	byID       map[int32]*fetchSession
	order      list.List // of *fetchSession, least recently used first
	partitions int
}

func newSessionCache(slots int, m *metrics) *sessionCache {
	return &sessionCache{slots: max(slots, 0), evictions: m.sessionEvictions, byID: map[int32]*fetchSession{}}
}

func (s *sessionCache) usage() (sessions, partitions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID), s.partitions
}

// create makes room for a session of n partitions and enters it; nil when there is no room.
func (s *sessionCache) create(n int, byID bool, now time.Time) *fetchSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.byID) >= s.slots || s.partitions+n > maxSessionPartitions {
		oldest := s.order.Front()
		if oldest == nil || now.Sub(oldest.Value.(*fetchSession).used) < evictAfter {
			return nil
		}
		s.remove(oldest.Value.(*fetchSession))
		s.evictions.Inc()
	}
	session := &fetchSession{id: s.newID(), byID: byID, used: now, size: n, epoch: initialEpoch + 1, partitions: make(map[sessionKey]*sessionPartition, n)}
	session.place = s.order.PushBack(session)
	s.byID[session.id] = session
	s.partitions += n
	return session
}

// newID picks a positive id that is free; random, so that a client cannot guess another's.
func (s *sessionCache) newID() int32 {
	for {
		id := rand.Int32()
		if _, taken := s.byID[id]; id != 0 && !taken {
			return id
		}
	}
}

// remove takes a session out; the caller holds mu.
func (s *sessionCache) remove(session *fetchSession) {
	if s.byID[session.id] != session {
		return
	}
	delete(s.byID, session.id)
	s.order.Remove(session.place)
	s.partitions -= session.size
}

// end takes a session out by its id.
func (s *sessionCache) end(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session, ok := s.byID[id]; ok {
		s.remove(session)
	}
}

// use finds a session and marks it as used.
func (s *sessionCache) use(id int32, now time.Time) (*fetchSession, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.byID[id]
	if ok {
		session.used = now
		s.order.MoveToBack(session.place)
	}
	return session, ok
}

// resize counts a session's partitions anew; false when there is no room, and the session is gone then.
func (s *sessionCache) resize(session *fetchSession, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[session.id] != session {
		return false
	}
	if s.partitions-session.size+n > maxSessionPartitions {
		s.remove(session)
		return false
	}
	s.partitions += n - session.size
	session.size = n
	return true
}

// fetchPlan is what one fetch has to look at and in which session.
type fetchPlan struct {
	targets     []fetchTarget
	session     *fetchSession // nil: none
	incremental bool          // tell only what changed
}

// plan applies a request to the sessions; the plan's targets are appended to into. The error is that of the whole response.
func (s *sessionCache) plan(req *wire.FetchRequest, byID bool, now time.Time, into []fetchTarget) (fetchPlan, error) {
	if req.SessionEpoch != finalEpoch && req.SessionEpoch != initialEpoch {
		return s.incremental(req, byID, now, into)
	}
	if req.SessionID != 0 {
		s.end(req.SessionID)
	}
	if req.SessionEpoch == initialEpoch && len(req.Partitions) > 0 {
		if session := s.create(len(req.Partitions), byID, now); session != nil {
			session.mu.Lock()
			defer session.mu.Unlock()
			for i := range req.Partitions {
				session.put(&req.Partitions[i])
			}
			return fetchPlan{targets: session.list(into), session: session}, nil
		}
	}
	for i := range req.Partitions {
		into = append(into, fetchTarget{FetchPartition: req.Partitions[i]})
	}
	return fetchPlan{targets: into}, nil
}

// incremental applies changes to an existing session.
func (s *sessionCache) incremental(req *wire.FetchRequest, byID bool, now time.Time, into []fetchTarget) (fetchPlan, error) {
	session, ok := s.use(req.SessionID, now)
	if !ok {
		return fetchPlan{}, kerr.FetchSessionIDNotFound
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	switch {
	case session.byID != byID:
		return fetchPlan{}, kerr.FetchSessionTopicIDError
	case req.SessionEpoch != session.epoch:
		return fetchPlan{}, kerr.InvalidFetchSessionEpoch
	}
	session.epoch = nextEpoch(session.epoch)
	for i := range req.Partitions {
		session.put(&req.Partitions[i])
	}
	for _, f := range req.Forgotten {
		session.forget(sessionKey{f.Topic, f.TopicID, f.Partition})
	}
	if !s.resize(session, len(session.partitions)) {
		return fetchPlan{}, kerr.FetchSessionIDNotFound // no room: the client starts again with a full fetch
	}
	if len(session.partitions) == 0 {
		s.end(session.id)
		return fetchPlan{}, nil // as Kafka: answered without a session
	}
	return fetchPlan{targets: session.list(into), session: session, incremental: true}, nil
}

// nextEpoch wraps around past the two epochs that mean something else.
func nextEpoch(epoch int32) int32 {
	if epoch == 1<<31-1 {
		return 1
	}
	return epoch + 1
}

// put adds a partition, or takes over what the client changed of it.
func (s *fetchSession) put(p *wire.FetchPartition) {
	key := keyOf(p)
	if m, ok := s.partitions[key]; ok {
		m.want = *p
		return
	}
	m := &sessionPartition{want: *p, highWatermark: -1}
	m.place = s.rotation.PushBack(m)
	s.partitions[key] = m
}

func (s *fetchSession) forget(key sessionKey) {
	if m, ok := s.partitions[key]; ok {
		delete(s.partitions, key)
		s.rotation.Remove(m.place)
	}
}

// list appends the rotation.
func (s *fetchSession) list(into []fetchTarget) []fetchTarget {
	for e := s.rotation.Front(); e != nil; e = e.Next() {
		m := e.Value.(*sessionPartition)
		into = append(into, fetchTarget{m.want, m})
	}
	return into
}

// changed decides whether an incremental response must name the partition, and remembers what it is told. Partitions
// that get records move to the back of the rotation, so that all get their turn when responses are full. The caller holds
// the session's mutex.
func (s *fetchSession) changed(m *sessionPartition, p *wire.FetchedPartition) bool {
	records := p.Records != nil && p.Records.Len() > 0
	if records {
		s.rotation.MoveToBack(m.place) // does nothing when the partition was forgotten meanwhile
	}
	must := records || p.ErrorCode != 0 || p.DivergingEpoch >= 0 ||
		m.highWatermark != p.HighWatermark || m.lastStable != p.LastStableOffset || m.logStart != p.LogStartOffset
	m.highWatermark, m.lastStable, m.logStart = p.HighWatermark, p.LastStableOffset, p.LogStartOffset
	return must
}
