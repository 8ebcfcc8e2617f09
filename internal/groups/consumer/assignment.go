package consumer

import (
	"bytes"
	"cmp"
	"slices"
)

// TopicID is Kafka's id of a topic (KIP-516).
type TopicID [16]byte

// TopicPartitions are some partitions of one topic.
type TopicPartitions struct {
	ID         TopicID
	Partitions []int32
	Epochs     []int32 // of what a member has: the epoch at which it was assigned each of Partitions (KIP-1251); nil elsewhere
}

// Assignment is a set of partitions: topics by id, each once and not empty, partitions ascending, each once. It is never written to once it
// is made; Normalize makes one of anything.
type Assignment []TopicPartitions

// Normalize sorts, merges and drops what is empty. It takes list over.
func Normalize(list []TopicPartitions) Assignment {
	slices.SortStableFunc(list, func(a, b TopicPartitions) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	out := list[:0]
	for _, t := range list {
		switch n := len(out); {
		case len(t.Partitions) == 0:
		case n > 0 && out[n-1].ID == t.ID:
			out[n-1].Partitions = slices.Concat(out[n-1].Partitions, t.Partitions)
			out[n-1].Epochs = slices.Concat(out[n-1].Epochs, t.Epochs)
		default:
			out = append(out, t)
		}
	}
	for i := range out {
		out[i].sort()
	}
	return Assignment(slices.Clip(out))
}

// sort puts copies of the lists in order. Of a partition with two epochs the later one counts.
func (t *TopicPartitions) sort() {
	if len(t.Epochs) != len(t.Partitions) {
		t.Epochs = nil
		t.Partitions = slices.Clone(t.Partitions)
		slices.Sort(t.Partitions)
		t.Partitions = slices.Compact(t.Partitions)
		return
	}
	type part struct{ n, epoch int32 }
	list := make([]part, len(t.Partitions))
	for i, p := range t.Partitions {
		list[i] = part{p, t.Epochs[i]}
	}
	slices.SortFunc(list, func(a, b part) int { return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(b.epoch, a.epoch)) })
	list = slices.CompactFunc(list, func(a, b part) bool { return a.n == b.n })
	t.Partitions, t.Epochs = make([]int32, len(list)), make([]int32, len(list))
	for i, p := range list {
		t.Partitions[i], t.Epochs[i] = p.n, p.epoch
	}
}

// At is the same set, assigned at an epoch.
func (a Assignment) At(epoch int32) Assignment {
	out := slices.Clone(a)
	for i := range out {
		out[i].Epochs = slices.Repeat([]int32{epoch}, len(out[i].Partitions))
	}
	return out
}

// Len is the number of partitions.
func (a Assignment) Len() (n int) {
	for i := range a {
		n += len(a[i].Partitions)
	}
	return n
}

// find gives a partition's place in the set.
func (a Assignment) find(id TopicID, partition int32) (topic, i int, ok bool) {
	topic, ok = slices.BinarySearchFunc(a, id, func(t TopicPartitions, id TopicID) int { return bytes.Compare(t.ID[:], id[:]) })
	if ok {
		i, ok = slices.BinarySearch(a[topic].Partitions, partition)
	}
	return topic, i, ok
}

// Has tells whether a partition is in the set.
func (a Assignment) Has(id TopicID, partition int32) bool {
	_, _, ok := a.find(id, partition)
	return ok
}

// epoch is the one at which a partition of the set was assigned.
func (a Assignment) epoch(id TopicID, partition int32) (epoch int32, ok bool) {
	topic, i, ok := a.find(id, partition)
	if !ok || a[topic].Epochs == nil {
		return 0, false
	}
	return a[topic].Epochs[i], true
}

// Equal compares sets, whatever the epochs.
func (a Assignment) Equal(b Assignment) bool {
	return slices.EqualFunc(a, b, func(x, y TopicPartitions) bool { return x.ID == y.ID && slices.Equal(x.Partitions, y.Partitions) })
}

// filter keeps what keep says, with its epochs.
func (a Assignment) filter(keep func(id TopicID, partition int32) bool) Assignment {
	var out Assignment
	for _, t := range a {
		kept := TopicPartitions{ID: t.ID}
		for i, p := range t.Partitions {
			if !keep(t.ID, p) {
				continue
			}
			kept.Partitions = append(kept.Partitions, p)
			if t.Epochs != nil {
				kept.Epochs = append(kept.Epochs, t.Epochs[i])
			}
		}
		if len(kept.Partitions) > 0 {
			out = append(out, kept)
		}
	}
	return out
}

func (a Assignment) and(b Assignment) Assignment { return a.filter(b.Has) }

func (a Assignment) minus(b Assignment) Assignment {
	return a.filter(func(id TopicID, p int32) bool { return !b.Has(id, p) })
}

func (a Assignment) or(b Assignment) Assignment {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return Normalize(append(slices.Clone(a), b...))
}

// overlaps tells whether the sets have a partition in common.
func (a Assignment) overlaps(b Assignment) bool {
	for _, t := range a {
		for _, p := range t.Partitions {
			if b.Has(t.ID, p) {
				return true
			}
		}
	}
	return false
}

// within tells whether all of a is in b.
func (a Assignment) within(b Assignment) bool {
	for _, t := range a {
		for _, p := range t.Partitions {
			if !b.Has(t.ID, p) {
				return false
			}
		}
	}
	return true
}
