package consumer

import (
	"bytes"
	"slices"
)

// TopicID is Kafka's id of a topic (KIP-516).
type TopicID [16]byte

// TopicPartitions are some partitions of one topic.
type TopicPartitions struct {
	ID         TopicID
	Partitions []int32
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
			out[n-1].Partitions = append(slices.Clone(out[n-1].Partitions), t.Partitions...)
		default:
			out = append(out, t)
		}
	}
	for i := range out {
		p := slices.Clone(out[i].Partitions)
		slices.Sort(p)
		out[i].Partitions = slices.Compact(p)
	}
	return Assignment(slices.Clip(out))
}

// Len is the number of partitions.
func (a Assignment) Len() (n int) {
	for i := range a {
		n += len(a[i].Partitions)
	}
	return n
}

// Has tells whether a partition is in the set.
func (a Assignment) Has(id TopicID, partition int32) bool {
	i, ok := slices.BinarySearchFunc(a, id, func(t TopicPartitions, id TopicID) int { return bytes.Compare(t.ID[:], id[:]) })
	if !ok {
		return false
	}
	_, ok = slices.BinarySearch(a[i].Partitions, partition)
	return ok
}

// Equal compares sets.
func (a Assignment) Equal(b Assignment) bool {
	return slices.EqualFunc(a, b, func(x, y TopicPartitions) bool { return x.ID == y.ID && slices.Equal(x.Partitions, y.Partitions) })
}

// filter keeps what keep says.
func (a Assignment) filter(keep func(id TopicID, partition int32) bool) Assignment {
	var out Assignment
	for _, t := range a {
		var kept []int32
		for _, p := range t.Partitions {
			if keep(t.ID, p) {
				kept = append(kept, p)
			}
		}
		if len(kept) > 0 {
			out = append(out, TopicPartitions{t.ID, kept})
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
