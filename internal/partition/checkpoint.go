package partition

import (
	"errors"

	"lagoon/segment"
)

// checkpoint writes recovery points and log starts in the background; failing costs recovery time only.
func (s *Store) checkpoint() {
	if err := s.writeCheckpoints(); err != nil {
		s.opt.Logger.Warn("checkpoints not written: the next unclean start reads more", "err", err)
	}
}

// writeCheckpoints stores, per home directory, up to where each log is durable and where it starts.
func (s *Store) writeCheckpoints() error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	var errs []error
	for _, d := range s.dirs {
		if d.rank != 0 || d.fenced() != nil {
			continue
		}
		points := map[segment.TopicPartition]segment.Offset{}
		starts := map[segment.TopicPartition]segment.Offset{}
		for _, l := range s.Logs() {
			if l.home != d || l.failed.Load() != nil {
				continue
			}
			tp := segment.TopicPartition{Topic: l.topic, Partition: l.partition}
			points[tp] = l.durable.Load().offset
			if v := l.view.Load(); v.start > v.segs[0].base {
				starts[tp] = v.start
			}
		}
		if s.saved[d] == nil || !equalPoints(s.saved[d].points, points) {
			if err := segment.WriteCheckpoint(d.spec.FS, segment.RecoveryPointFile, points); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		if s.saved[d] == nil || !equalPoints(s.saved[d].starts, starts) {
			if err := segment.WriteCheckpoint(d.spec.FS, segment.LogStartFile, starts); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		s.saved[d] = &savedCheckpoint{points, starts}
	}
	return errors.Join(errs...)
}

// savedCheckpoint is what a directory's checkpoint files hold, so that an idle broker writes nothing.
type savedCheckpoint struct {
	points, starts map[segment.TopicPartition]segment.Offset
}

func equalPoints(a, b map[segment.TopicPartition]segment.Offset) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}
