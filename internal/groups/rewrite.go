package groups

import (
	"lagoon/segment"
)

// A shard's log is written anew when it has become much larger than what it says: all groups and offsets as they are, and then what lies
// before is deleted. Until records are compacted in place this is what bounds the topic, and with it the time of a start. A crash in between
// leaves both, and the later records win.

// rewriteIfDue begins a rewrite in the background; shard.mu is held.
func (s *shard) rewriteIfDue() {
	if s.rewriting || s.keep || len(s.txns) > 0 || s.logBytes < s.rewriteAt || s.c.ctx.Err() != nil {
		return
	}
	s.rewriting = true
	s.c.wg.Go(s.rewrite)
}

func (s *shard) rewrite() {
	from, next, before, live, err := s.writeAll()
	if err == nil {
		err = s.log.Durable(s.c.ctx, next)
	}
	if err == nil {
		_, err = s.log.DeleteRecords(s.c.ctx, from)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewriting = false
	if err != nil {
		s.rewriteAt = s.logBytes + s.c.opt.RewriteBytes // later
		if s.c.ctx.Err() == nil {
			s.c.opt.Logger.Warn("partition of "+Topic+" not shortened", "partition", s.partition, "err", err)
		}
		return
	}
	s.logBytes -= before
	s.rewriteAt = max(s.c.opt.RewriteBytes, 4*live) // what came in beside the rewrite is no reason to wait longer
	s.c.metrics.rewrites.Inc()
	s.rewriteIfDue()
}

// writeAll writes everything the shard holds. It gives the first offset of that, the one after it, the bytes of the log before it, and its own.
func (s *shard) writeAll() (from, next segment.Offset, before, live int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.logBytes
	first := true
	s.builder.Reset()
	flush := func() {
		if s.builder.Len() == 0 || err != nil {
			return
		}
		n := s.builder.Len()
		next, err = s.append()
		if err == nil && first {
			from, first = next-segment.Offset(n), false
		}
		s.builder.Reset()
	}
	add := func(key, value []byte) {
		s.builder.Add(key, value)
		if s.builder.Size() > maxBatch {
			flush()
		}
	}
	for _, r := range s.foreign {
		add(r.key, r.value)
	}
	for _, g := range s.groups {
		if g.last != nil {
			add(appendGroupKey(nil, g.id), appendGroupValue(nil, *g.last))
		}
		if g.consumer != nil {
			for _, r := range g.consumer.Snapshot() {
				s.addConsumer(g.id, r)
			}
			if s.builder.Size() > maxBatch {
				flush()
			}
		}
		for tp := range g.offsets {
			if v, ok := g.newest(tp); ok {
				add(appendOffsetKey(nil, g.id, tp), appendOffsetValue(nil, v.offsetValue))
			}
		}
	}
	flush()
	if first && err == nil { // it holds nothing: everything may go
		from = s.log.Offsets().HighWatermark
		next = from
	}
	return from, next, before, s.logBytes - before, err
}
