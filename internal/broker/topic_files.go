package broker

import (
	"context"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// topicFiles is what the admin APIs do to partitions; the real one is a partition.Store. Whatever finds partitions
// (logs) also implements this.
type topicFiles interface {
	// create makes a partition and serves it; partition.ErrExists when it is served already.
	create(ctx context.Context, topic string, id [16]byte, index int32, cfg partition.Config) error
	// remove stops serving a topic and takes its directories away for good.
	remove(ctx context.Context, topic string, id [16]byte) error
	// configure is partition.Store.SetConfigs.
	configure(cfgs map[string]*partition.Config)
	dirs() []partition.DirView
	// state tells whether a partition is served, its leader epoch and why it is offline.
	state(topic string, index int32) (epoch int32, served bool, offline error)
	// pinTarget is partition.Store.PinTarget.
	pinTarget(topic string, index int32, path string) (name string, err error)
	// trim moves a partition's log start; see partition.Log.DeleteRecords. ErrClosed when it is not served.
	trim(ctx context.Context, topic string, index int32, before segment.Offset) (segment.Offset, error)
}

func (b *Broker) files() topicFiles { return b.logs.(topicFiles) }

func (s storeLogs) create(ctx context.Context, topic string, id [16]byte, index int32, cfg partition.Config) error {
	_, err := s.store.Create(ctx, topic, id, index, cfg)
	return err
}

func (s storeLogs) remove(ctx context.Context, topic string, id [16]byte) error {
	return s.store.Delete(ctx, topic, id)
}

func (s storeLogs) configure(cfgs map[string]*partition.Config) { s.store.SetConfigs(cfgs) }

func (s storeLogs) dirs() []partition.DirView { return s.store.Dirs() }

func (s storeLogs) state(topic string, index int32) (epoch int32, served bool, offline error) {
	l, ok := s.store.Log(topic, index)
	if !ok {
		return -1, false, nil
	}
	if err := l.Err(); err != nil {
		return -1, true, err
	}
	return l.Offsets().LeaderEpoch, true, nil
}

func (s storeLogs) pinTarget(topic string, index int32, path string) (string, error) {
	return s.store.PinTarget(topic, index, path)
}

func (s storeLogs) trim(ctx context.Context, topic string, index int32, before segment.Offset) (segment.Offset, error) {
	l, ok := s.store.Log(topic, index)
	if !ok {
		return 0, partition.ErrClosed
	}
	return l.DeleteRecords(ctx, before)
}
