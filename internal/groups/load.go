package groups

import (
	"encoding/hex"
	"errors"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
	"lagoon/internal/records"
	"lagoon/segment"
)

// Records that cannot be read are kept for rewrites of the log; a shard with more of them is not rewritten at all.
const maxForeignBytes = 1 << 20

// foreignRecord is a record that this release cannot read, or that is damaged within.
type foreignRecord struct{ key, value []byte }

// loading is what a shard's log says so far.
type loading struct {
	s       *shard
	offsets map[string]map[topicPartition]version
	groups  map[string]*classic.Metadata
	members map[string]*consumer.Group // groups of the consumer protocol
	open    map[int64][]foreignRecord  // records of transactions that have not ended, by producer
	foreign map[string]foreignRecord
	bytes   int64
	bad     int // malformed records and batches
	unknown int // of other kinds
}

// load reads the shard's log. A failure is logged and makes the shard refuse its groups until a restart.
func (s *shard) load() {
	started := time.Now()
	log, ok := s.c.opt.Log(s.partition)
	if !ok {
		s.failed(errNoLog)
		return
	}
	l := &loading{s: s, offsets: map[string]map[topicPartition]version{}, groups: map[string]*classic.Metadata{}, members: map[string]*consumer.Group{},
		open: map[int64][]foreignRecord{}, foreign: map[string]foreignRecord{}}
	damaged, err := log.Scan(s.c.ctx, 0, l.batch)
	if err != nil {
		if s.c.ctx.Err() == nil {
			s.failed(err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = log
	l.finish()
	if bad := l.bad + damaged; bad > 0 {
		s.c.metrics.corrupt.Add(float64(bad))
		s.c.opt.Logger.Error("records of "+Topic+" could not be read: what they held is missing, everything else is loaded",
			"partition", s.partition, "records", l.bad, "damaged_ranges", damaged)
	}
	if l.unknown > 0 {
		s.c.opt.Logger.Warn("records of "+Topic+" are of kinds that this release does not know: they are kept and not used", "partition", s.partition, "records", l.unknown)
	}
	s.state.Store(shardReady)
	s.c.metrics.loadSeconds.Observe(time.Since(started).Seconds())
}

func (s *shard) failed(err error) {
	s.state.Store(shardFailed)
	s.c.opt.Logger.Error("groups of a partition of "+Topic+" cannot be served: bring its log directory back and restart", "partition", s.partition, "err", err)
}

// Control records of transactions: the key is a version and a type (KIP-98).
const controlCommit = 1

func (l *loading) batch(h segment.BatchHeader, batch []byte) (bool, error) {
	l.bytes += h.SizeBytes()
	if h.IsControl() {
		commit := false
		l.each(h, batch, func(r records.Record) { commit = len(r.Key) >= 4 && r.Key[3] == controlCommit })
		if commit {
			for _, r := range l.open[h.ProducerID] {
				l.record(r.key, r.value)
			}
		}
		delete(l.open, h.ProducerID)
		return true, nil
	}
	l.each(h, batch, func(r records.Record) {
		if h.IsTransactional() {
			l.open[h.ProducerID] = append(l.open[h.ProducerID], foreignRecord{clone(r.Key), clone(r.Value)})
			return
		}
		l.record(r.Key, r.Value)
	})
	return true, nil
}

// each reads the records of a batch; what cannot be unpacked counts as one.
func (l *loading) each(h segment.BatchHeader, batch []byte, fn func(records.Record)) {
	if err := records.Each(h, batch, func(r records.Record) bool { fn(r); return true }); err != nil {
		l.bad++
		l.s.keep = true
		l.s.c.opt.Logger.Error("batch of "+Topic+" could not be unpacked", "partition", l.s.partition, "offset", h.BaseOffset, "err", err)
	}
}

func (l *loading) record(k, v []byte) {
	id, err := readKey(k)
	switch {
	case err != nil || id.unused:
	case id.offset:
		err = l.offset(id, v)
	case id.consumer != nil:
		err = l.consumer(id, v)
	default:
		err = l.group(id, v)
	}
	if err == nil {
		return
	}
	if errors.Is(err, errForeign) {
		l.unknown++
	} else if l.bad++; l.bad <= 10 { // a few tell what is wrong, the sum is logged at the end
		l.s.c.opt.Logger.Error("record of "+Topic+" could not be read", "partition", l.s.partition, "err", err, "key", excerpt(k), "value", excerpt(v))
	}
	l.foreign[string(k)] = foreignRecord{clone(k), clone(v)}
}

func excerpt(b []byte) string { return hex.EncodeToString(b[:min(len(b), 64)]) }

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

func (l *loading) offset(k key, v []byte) error {
	of := l.offsets[k.group]
	if v == nil {
		delete(of, k.tp)
		return nil
	}
	value, err := readOffsetValue(v)
	if err != nil {
		return err
	}
	if of == nil {
		of = map[topicPartition]version{}
		l.offsets[k.group] = of
	}
	of[k.tp] = version{offsetValue: value}
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
	live := int64(0)
	for id, offsets := range l.offsets {
		if len(offsets) == 0 {
			continue
		}
		g := s.groups[id]
		if g == nil {
			g = s.create(id)
		}
		for tp, v := range offsets {
			s.put(g, tp, v, 0)
		}
		s.buryLogged(g, func(tp topicPartition, _ version) bool { return !s.c.opt.Exists(tp.topic, tp.partition) })
	}
	for _, g := range s.groups {
		s.apply(g)
		s.settle(g)
		live += g.bytes + g.kept
	}
	l.reopen()
	kept := 0
	for _, r := range l.foreign {
		if kept += len(r.key) + len(r.value); kept > maxForeignBytes {
			s.keep, s.foreign = true, nil
			break
		}
		s.foreign = append(s.foreign, r)
	}
	s.logBytes += l.bytes
	s.rewriteAt = max(s.c.opt.RewriteBytes, 4*live)
	s.rewriteIfDue()
}
