package transactions

import (
	"cmp"
	"slices"
	"time"

	"lagoon/internal/transactions/txn"
)

// Listed is one id of a list.
type Listed struct {
	ID         string
	ProducerID int64
	State      txn.State
}

// Filter says which ids to list; zero values keep all.
type Filter struct {
	States      []txn.State
	ProducerIDs []int64
	OpenFor     time.Duration // without those whose last transaction began less long ago; as in Kafka, ids that never had one stay
	Matches     func(id string) bool
}

// List gives ids in order. The error is that of shards that are not loaded; the others are listed all the same.
func (c *Coordinator) List(f Filter) (out []Listed, err txn.Error) {
	now := c.opt.Now()
	for _, s := range c.all() {
		switch s.state.Load() {
		case shardLoading:
			err = txn.CoordinatorLoading
			continue
		case shardFailed:
			continue
		}
		s.mu.Lock()
		for _, e := range s.ids {
			r := e.Record()
			if r.State == txn.Dead || len(f.States) > 0 && !slices.Contains(f.States, r.State) || len(f.ProducerIDs) > 0 && !slices.Contains(f.ProducerIDs, r.ProducerID) ||
				f.OpenFor > 0 && !r.Started.IsZero() && now.Sub(r.Started) <= f.OpenFor || f.Matches != nil && !f.Matches(e.id) {
				continue
			}
			out = append(out, Listed{e.id, r.ProducerID, r.State})
		}
		s.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Listed) int { return cmp.Compare(a.ID, b.ID) })
	return out, err
}

// Describe tells about one id; its Partitions must not be changed.
func (c *Coordinator) Describe(id string) (txn.Record, txn.Error) {
	s, err := c.shardOf(id)
	if err != txn.None {
		return txn.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil && e.Record().State != txn.Dead { // its end is being written
		return e.Record(), txn.None
	}
	return txn.Record{}, txn.TransactionalIDNotFound
}
