package transactions

import (
	"errors"
	"time"

	"lagoon/internal/records"
	"lagoon/internal/statetopic"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// load reads the shard's log and goes on with the transactions whose end is on record. A failure is logged and makes the shard refuse
// its ids until a restart.
func (s *shard) load() {
	started := time.Now()
	log, ok := s.c.opt.Log(s.partition)
	if !ok {
		s.failed(errNoLog)
		return
	}
	found := map[string]txn.Record{}
	bad := 0
	damaged, err := statetopic.Load(s.c.ctx, log, func(h segment.BatchHeader, batch []byte) (bool, error) {
		if h.IsControl() {
			return true, nil
		}
		if err := records.Each(h, batch, func(r records.Record) bool {
			if err := read(found, r.Key, r.Value); err != nil {
				if bad++; bad <= 10 { // a few tell what is wrong, the sum is logged at the end
					s.c.opt.Logger.Error("record of "+Topic+" could not be read", "partition", s.partition, "offset", r.Offset, "err", err, "key", statetopic.Excerpt(r.Key), "value", statetopic.Excerpt(r.Value))
				}
			}
			return true
		}); err != nil {
			bad++
			s.c.opt.Logger.Error("batch of "+Topic+" could not be unpacked", "partition", s.partition, "offset", h.BaseOffset, "err", err)
		}
		return true, nil
	})
	if err != nil {
		if s.c.ctx.Err() == nil {
			s.failed(err)
		}
		return
	}
	if bad += damaged; bad > 0 {
		s.c.metrics.corrupt.Add(float64(bad))
		s.c.opt.Logger.Error("records of "+Topic+" could not be read: what they held is missing, everything else is loaded", "partition", s.partition, "records", bad)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = log
	now := s.c.opt.Now()
	for id, r := range found {
		r.Started, r.Updated = since(now, r.Started), since(now, r.Updated)
		e := s.take(id, txn.Restore(r))
		if _, ending := e.Ending(); ending {
			s.finish(e, log.Offsets().HighWatermark)
		}
	}
	s.state.Store(shardReady)
	s.c.metrics.loadSeconds.Observe(time.Since(started).Seconds())
}

// since is the time of a record in a process that begins now: by the clock that nobody sets, and not later than now. A clock that was ahead
// when the transaction began would else keep it, and readers of committed records, for as long.
func since(now, t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return now.Add(-max(0, now.Sub(t)))
}

// read takes one record in.
func read(found map[string]txn.Record, key, value []byte) error {
	id, err := readKey(key)
	if err != nil {
		return err
	}
	if value == nil {
		delete(found, id)
		return nil
	}
	r, err := readValue(value)
	switch {
	case err != nil:
		return err
	case id == "":
		return errors.Join(statetopic.ErrMalformed, errors.New("no id"))
	case r.State == txn.Dead:
		delete(found, id)
	default:
		found[id] = r
	}
	return nil
}

func (s *shard) failed(err error) {
	s.state.Store(shardFailed)
	s.c.opt.Logger.Error("transactional ids of a partition of "+Topic+" cannot be served: bring its log directory back and restart", "partition", s.partition, "err", err)
}
