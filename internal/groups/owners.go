package groups

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/internal/groups/classic"
)

// Source says how a reader's group is known.
type Source string

// Sources, the best first.
const (
	SourceAssignment Source = "assignment" // the group's leader gave it the partition
	SourceCommit     Source = "commit"     // it takes no part in a group and commits the partition's offsets to this one
	SourceNone       Source = "none"
)

// ownerKey is what a fetch and a group member have in common: Fetch names no group, and comes over another connection.
type ownerKey struct {
	client, host string
	topic        string
	partition    int32
}

// owner is one group that reads a partition by a client.
type owner struct {
	group  string
	source Source
	at     int64 // ms, of the last commit
}

// owners tells which group a fetch belongs to, without a lock: buckets of immutable maps, replaced by writers.
type owners struct {
	seed    maphash.Seed
	buckets [64]atomic.Pointer[map[ownerKey][]owner]

	mu       sync.Mutex
	assigned map[string][]ownerKey // by group
	commits  int                   // entries by commit
}

const (
	maxCommitOwners   = 10_000           // clients can make these up
	commitOwnerExpiry = 10 * time.Minute // a reader that commits less often is not known by it
)

func (o *owners) init() {
	o.seed = maphash.MakeSeed()
	o.assigned = map[string][]ownerKey{}
	for i := range o.buckets {
		o.buckets[i].Store(&map[ownerKey][]owner{})
	}
}

func (o *owners) bucket(client, host string) *atomic.Pointer[map[ownerKey][]owner] {
	return &o.buckets[(maphash.String(o.seed, client)^maphash.String(o.seed, host))%uint64(len(o.buckets))]
}

// Owner tells which group a client reads a partition for. It takes no lock and does not allocate. Two groups with the same claim are
// none: the fetch does not say which.
func (c *Coordinator) Owner(clientID, host, topic string, partition int32) (group string, source Source) {
	list := (*c.owners.bucket(clientID, host).Load())[ownerKey{clientID, host, topic, partition}]
	for _, source := range [...]Source{SourceAssignment, SourceCommit} {
		claims := 0
		for i := range list {
			if list[i].source == source {
				group = list[i].group
				claims++
			}
		}
		switch claims {
		case 0:
		case 1:
			return group, source
		default:
			return "", SourceNone
		}
	}
	return "", SourceNone
}

// change replaces the claims of some keys; mu is held.
func (o *owners) change(keys []ownerKey, edit func(k ownerKey, list []owner) []owner) {
	byBucket := map[*atomic.Pointer[map[ownerKey][]owner]][]ownerKey{}
	for _, k := range keys {
		b := o.bucket(k.client, k.host)
		byBucket[b] = append(byBucket[b], k)
	}
	for b, keys := range byBucket {
		next := maps.Clone(*b.Load())
		for _, k := range keys {
			if list := edit(k, slices.Clone(next[k])); len(list) > 0 {
				next[k] = list
			} else {
				delete(next, k)
			}
		}
		b.Store(&next)
	}
}

// assign replaces what is known of a group's assignments.
func (o *owners) assign(group string, list []classic.Assignment) {
	now := map[ownerKey]bool{}
	for _, a := range list {
		for _, t := range a.Topics {
			for _, p := range t.Partitions {
				now[ownerKey{a.ClientID, a.Host, t.Topic, p}] = true
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	keys := slices.DeleteFunc(slices.Clone(o.assigned[group]), func(k ownerKey) bool { return now[k] })
	was := map[ownerKey]bool{}
	for _, k := range o.assigned[group] {
		was[k] = true
	}
	for k := range now {
		if !was[k] {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return
	}
	o.change(keys, func(k ownerKey, list []owner) []owner {
		if now[k] {
			return append(list, owner{group: group, source: SourceAssignment})
		}
		return slices.DeleteFunc(list, func(w owner) bool { return w.group == group && w.source == SourceAssignment })
	})
	if len(now) == 0 {
		delete(o.assigned, group)
		return
	}
	o.assigned[group] = slices.Collect(maps.Keys(now))
}

// committed notes a commit by a client that is no member.
func (o *owners) committed(r CommitRequest, now time.Time) {
	ms := now.UnixMilli()
	var keys []ownerKey
	fresh := 0 // of keys; one that is named twice counts twice here
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range r.Offsets {
		k := ownerKey{r.ClientID, r.Host, p.Topic, p.Partition}
		list := (*o.bucket(k.client, k.host).Load())[k]
		i := slices.IndexFunc(list, func(w owner) bool { return w.group == r.Group && w.source == SourceCommit })
		switch {
		case i >= 0 && ms-list[i].at < commitOwnerExpiry.Milliseconds()/2: // known well enough
		case i >= 0 || o.commits+fresh < maxCommitOwners:
			keys = append(keys, k)
			if i < 0 {
				fresh++
			}
		}
	}
	if len(keys) == 0 {
		return
	}
	o.change(keys, func(_ ownerKey, list []owner) []owner {
		n := len(list)
		list = slices.DeleteFunc(list, func(w owner) bool { return w.group == r.Group && w.source == SourceCommit })
		list = append(list, owner{r.Group, SourceCommit, ms})
		o.commits += len(list) - n
		return list
	})
}

// expire forgets commits that are long ago.
func (o *owners) expire(now time.Time) {
	oldest := now.Add(-commitOwnerExpiry).UnixMilli()
	old := func(w owner) bool { return w.source == SourceCommit && w.at < oldest }
	o.mu.Lock()
	defer o.mu.Unlock()
	var keys []ownerKey
	for i := range o.buckets {
		for k, list := range *o.buckets[i].Load() {
			if slices.ContainsFunc(list, old) {
				keys = append(keys, k)
			}
		}
	}
	o.change(keys, func(_ ownerKey, list []owner) []owner {
		n := len(list)
		list = slices.DeleteFunc(list, old)
		o.commits -= n - len(list)
		return list
	})
}
