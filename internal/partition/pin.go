package partition

import (
	"fmt"
	"slices"

	"lagoon/segment"
	"lagoon/tiering"
)

// pinned is the log directory that an operator wants the sealed segments in, nil: none, or one that is not configured any more.
func (l *Log) pinned() *logDir { return l.store.dirNamed(l.config().Pins[l.partition]) }

func (s *Store) dirNamed(name string) *logDir {
	for _, d := range s.dirs {
		if d.name == name {
			return d
		}
	}
	return nil
}

// PinTarget is the name, for Config.Pins, of the log directory at path, if the partition's sealed segments can be brought
// there. Errors: ErrNoLogDir, ErrFenced (the directory, or the partition), ErrClosed (the partition is not served),
// ErrPlacement: appends go to the partition's home, and segments move between tiers, not between directories of one.
func (s *Store) PinTarget(topic string, partition int32, path string) (name string, err error) {
	i := slices.IndexFunc(s.dirs, func(d *logDir) bool { return d.spec.FS.Root() == path })
	if i < 0 {
		return "", fmt.Errorf("%w: %.250q", ErrNoLogDir, path)
	}
	d := s.dirs[i]
	if err := d.fenced(); err != nil {
		return "", err
	}
	l, ok := s.Log(topic, partition)
	if !ok {
		return "", fmt.Errorf("%w: %.250s-%d is not served", ErrClosed, topic, partition)
	}
	if err := l.Err(); err != nil {
		return "", err
	}
	if d.rank == 0 && d != l.home {
		return "", fmt.Errorf("%w: appends to %s go to %s, and %s is in the same tier", ErrPlacement, l.dir, l.home.spec.FS.Root(), path)
	}
	for _, seg := range l.Segments() {
		if lies := s.dirs[seg.dirIndex]; lies != d && lies.rank == d.rank && !seg.Active {
			return "", fmt.Errorf("%w: segments of %s lie in %s, which is in the same tier as %s", ErrPlacement, l.dir, lies.spec.FS.Root(), path)
		}
	}
	return d.name, nil
}

// share is what a log directory holds of a partition.
type share struct {
	DirPartition
	segments int
	listed   bool
}

// shares tells, by Store.dirs, where the partition is. It is listed wherever it has bytes. A pinned one is listed as
// Kafka's tools understand a move: before all sealed segments are in place their directory is the future one; then the
// partition is in that alone, its active segment, which is at home, counted there.
func (l *Log) shares() map[int]share {
	out, pin, lag := map[int]share{}, l.pinned(), int64(0)
	total := int64(0)
	for _, seg := range l.Segments() {
		s := out[seg.dirIndex]
		s.DirPartition.Topic, s.DirPartition.Partition = l.topic, l.partition
		s.SizeBytes, s.segments, s.listed = s.SizeBytes+seg.SizeBytes, s.segments+1, true
		out[seg.dirIndex] = s
		total += seg.SizeBytes
		if pin != nil && !seg.Active && seg.dirIndex != pin.index {
			lag += int64(seg.Next - seg.Base)
		}
	}
	if pin == nil || len(out) == 0 {
		return out
	}
	there := out[pin.index]
	there.DirPartition = DirPartition{Topic: l.topic, Partition: l.partition, SizeBytes: there.SizeBytes, Future: lag > 0, Lag: lag}
	there.listed = true
	if lag == 0 {
		there.SizeBytes = total
		for i, s := range out {
			s.listed = false
			out[i] = s
		}
	}
	out[pin.index] = there
	return out
}

// PinView is a pin for people.
type PinView struct {
	Dir, Tier, Path string // Tier and Path are "" when no log directory has that name any more
	Segments        int    // sealed ones that lie elsewhere
	Bytes           int64
	// Waiting says why the next of them is not moved; "" when nothing keeps it, or nothing is left to move.
	Waiting string
}

// Pin shows the pin of a partition; ok is false when it has none.
func (l *Log) Pin() (v PinView, ok bool) {
	v.Dir = l.config().Pins[l.partition]
	d := l.pinned()
	if d == nil {
		return v, v.Dir != ""
	}
	v.Tier, v.Path = d.spec.Tier, d.spec.FS.Root()
	for _, seg := range l.Segments() {
		if !seg.Active && seg.dirIndex != d.index {
			v.Segments++
			v.Bytes += seg.SizeBytes
		}
	}
	for _, m := range l.store.migrator.Snapshot().PutOff {
		if v.Waiting == "" && m.Topic == l.topic && m.Partition == l.partition && m.Cause == tiering.CausePin {
			v.Waiting = m.Reason
		}
	}
	return v, true
}

// Unpinned is what the policy would do with a partition's sealed segments if it were not pinned, by tier: the bytes
// that would lie there when it is done.
func (s *Store) Unpinned(topic string, partition int32) map[string]int64 {
	snap := s.tierSnapshot()
	lies := map[segment.Offset]string{}
	sizes := map[segment.Offset]int64{}
	for i := range snap.Topics {
		for j := range snap.Topics[i].Partitions {
			p := &snap.Topics[i].Partitions[j]
			if snap.Topics[i].Name != topic || p.Partition != partition {
				continue
			}
			p.Pin = ""
			for k := range p.Segments {
				if seg := &p.Segments[k]; seg.Sealed {
					seg.Moving = false
					lies[seg.Base], sizes[seg.Base] = snap.Tiers[seg.Tier].Name, seg.SizeBytes
				}
			}
		}
	}
	moves, putOff := tiering.Plan(snap)
	for _, m := range slices.Concat(moves, putOff) {
		if m.Topic == topic && m.Partition == partition {
			lies[m.Base] = m.To
		}
	}
	out := map[string]int64{}
	for base, tier := range lies {
		out[tier] += sizes[base]
	}
	return out
}
