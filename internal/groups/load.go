package groups

import (
	"errors"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/records"
	"lagoon/internal/statetopic"
	"lagoon/segment"
)

// openRecord is a record of a transaction whose marker is to come, and the offset after it.
type openRecord struct {
	key, value []byte
	at         segment.Offset
}

// loading is what a shard's log says so far.
type loading struct {
	s       *shard
	topics  Topics // as they were at Start
	offsets map[string]map[topicPartition]version
	groups  map[string]*classic.Metadata
	members map[string]*consumer.Group // groups of the consumer protocol
	open    map[int64][]openRecord     // records of transactions that have not ended, by producer
	bad     int                        // malformed records and batches
	unknown int                        // of other kinds
}

// load reads the shard's log; topics are as they were at Start. A failure is logged and makes the shard refuse its groups until a restart.
func (s *shard) load(topics Topics) {
	started := time.Now()
	log, ok := s.c.opt.Log(s.partition)
	if !ok {
		s.failed(errNoLog)
		return
	}
	l := &loading{s: s, topics: topics, offsets: map[string]map[topicPartition]version{}, groups: map[string]*classic.Metadata{}, members: map[string]*consumer.Group{},
		open: map[int64][]openRecord{}}
	damaged, err := statetopic.Load(s.c.ctx, log, l.batch)
	if err != nil {
		if s.c.ctx.Err() == nil {
			s.failed(err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = log
	s.state.Store(shardReady) // before topics are looked for: one that is deleted afterwards waits here, see TopicDeleted
	l.finish()
	if bad := l.bad + damaged; bad > 0 {
		s.c.metrics.corrupt.Add(float64(bad))
		s.c.opt.Logger.Error("records of "+Topic+" could not be read: what they held is missing, everything else is loaded",
			"partition", s.partition, "records", l.bad, "damaged_ranges", damaged)
	}
	if l.unknown > 0 {
		s.c.opt.Logger.Warn("records of "+Topic+" are of kinds that this release does not know: they are kept and not used", "partition", s.partition, "records", l.unknown)
	}
	s.c.metrics.loadSeconds.Observe(time.Since(started).Seconds())
}

func (s *shard) failed(err error) {
	s.state.Store(shardFailed)
	s.c.opt.Logger.Error("groups of a partition of "+Topic+" cannot be served: bring its log directory back and restart", "partition", s.partition, "err", err)
}

// Control records of transactions: the key is a version and a type (KIP-98).
const controlCommit = 1

func (l *loading) batch(h segment.BatchHeader, batch []byte) (bool, error) {
	if h.IsControl() {
		commit := false
		l.each(h, batch, func(r records.Record) { commit = len(r.Key) >= 4 && r.Key[3] == controlCommit })
		if commit {
			for _, r := range l.open[h.ProducerID] {
				l.record(r.key, r.value, r.at)
			}
		}
		delete(l.open, h.ProducerID)
		return true, nil
	}
	l.each(h, batch, func(r records.Record) {
		if h.IsTransactional() {
			l.open[h.ProducerID] = append(l.open[h.ProducerID], openRecord{clone(r.Key), clone(r.Value), r.Offset + 1})
			return
		}
		l.record(r.Key, r.Value, r.Offset+1)
	})
	return true, nil
}

// each reads the records of a batch; what cannot be unpacked counts as one.
func (l *loading) each(h segment.BatchHeader, batch []byte, fn func(records.Record)) {
	if err := records.Each(h, batch, func(r records.Record) bool { fn(r); return true }); err != nil {
		l.bad++
		l.s.c.opt.Logger.Error("batch of "+Topic+" could not be unpacked", "partition", l.s.partition, "offset", h.BaseOffset, "err", err)
	}
}

// record takes in what a record at the offset before at says.
func (l *loading) record(k, v []byte, at segment.Offset) {
	id, err := readKey(k)
	switch {
	case err != nil || id.unused:
	case id.offset:
		err = l.offset(id, v, at)
	case id.consumer != nil:
		err = l.consumer(id, v)
	default:
		err = l.group(id, v)
	}
	if err == nil {
		return
	}
	if errors.Is(err, statetopic.ErrForeign) {
		l.unknown++
	} else if l.bad++; l.bad <= 10 { // a few tell what is wrong, the sum is logged at the end
		l.s.c.opt.Logger.Error("record of "+Topic+" could not be read", "partition", l.s.partition, "err", err, "key", statetopic.Excerpt(k), "value", statetopic.Excerpt(v))
	}
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// offset takes in a commit, or a tombstone. Those of a transaction come with its marker, when a later record may have overtaken them.
func (l *loading) offset(k key, v []byte, at segment.Offset) (err error) {
	next := version{at: at, deleted: v == nil}
	if v != nil {
		if next.offsetValue, err = readOffsetValue(v); err != nil {
			return err
		}
	}
	of := l.offsets[k.group]
	if of == nil {
		of = map[topicPartition]version{}
		l.offsets[k.group] = of
	}
	if of[k.tp].at < at {
		of[k.tp] = next
	}
	return nil
}

func (l *loading) group(k key, v []byte) error {
	if v == nil {
		delete(l.groups, k.group)
		return nil
	}
	m, err := readGroupValue(v)
	if err == nil {
		l.groups[k.group] = &m
	}
	return err
}

func (l *loading) consumer(k key, v []byte) error {
	r, err := readConsumerValue(*k.consumer, v)
	if err != nil {
		return err
	}
	g := l.members[k.group]
	if g == nil {
		if r.Deleted {
			return nil
		}
		g = consumer.New(&l.s.c.opt.Consumer)
		l.members[k.group] = g
	}
	if g.Restore(r); !g.Stored() {
		delete(l.members, k.group)
	}
	return nil
}

// finish makes the groups; shard.mu is held. Offsets of topics that are gone are dropped: a crash came between the deletion of the
// topic and theirs.
func (l *loading) finish() {
	s, now := l.s, time.Now()
	for id, m := range l.members {
		delete(l.groups, id) // there is one only when a part of a conversion is missing
		m.Start(now, s.c.opt.Settings(id), s.c.opt.Topics())
		s.take(id, m)
	}
	for id, m := range l.groups {
		g := s.take(id, classic.Restore(&s.c.opt.Classic, *m, now))
		g.last = m
	}
	for id, offsets := range l.offsets {
		for tp, v := range offsets {
			if v.deleted {
				continue
			}
			if s.groups[id] == nil {
				s.create(id)
			}
			s.put(s.groups[id], tp, v, 0)
		}
	}
	l.reopen()
	gone := l.gone()
	for _, g := range s.groups {
		s.buryLogged(g, s.held(g, gone))
		s.apply(g)
		s.settle(g)
	}
}

// gone tells which offsets are of topics that are not there any more. Everything on record is older than Start: a topic that was made since then has only
// its name from the one that they are of.
func (l *loading) gone() func(topicPartition) bool {
	now := l.s.c.opt.Topics()
	return func(tp topicPartition) bool {
		was, _, known := l.topics.Find(tp.topic)
		is, _, there := now.Find(tp.topic)
		return !known || !there || was != is || !l.s.c.opt.Exists(tp.topic, tp.partition)
	}
}
