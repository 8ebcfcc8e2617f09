package partition_test

import (
	"sync/atomic"
	"testing"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
)

// A read that meets a device which does not answer, though the pages seemed to be in memory, holds up neither those who look at the readers nor
// the work of each second, which is that of all partitions.
func TestHungReadIsLookedAt(t *testing.T) {
	var on atomic.Bool
	hung, release := make(chan struct{}, 16), make(chan struct{})
	s := open(t, nil, vfs.WithFaults(vfs.NewMem(1), vfs.InjectorFunc(func(op vfs.Op) error {
		if on.Load() && op.Kind == vfs.OpRead && isLog(op.Name) {
			hung <- struct{}{}
			<-release
		}
		return nil
	})))
	l := load(t, s, config(), 1)
	produce(t, l, batch("b", 1, 1000, nil, 1))
	ref := partition.ReaderRef{ClientID: "r"}
	get(t, l, ref, 0)
	on.Store(true)
	read := make(chan struct{})
	go func() {
		defer close(read)
		if res, err := l.Read(partition.ReadRequest{Reader: ref, MaxBytes: 1 << 20, MustServe: true}); err == nil && res.Chunk != nil {
			res.Chunk.Release()
		}
	}()
	<-hung
	defer closeStore(t, s)
	defer func() { <-read }()
	defer close(release)
	within(t, "who looks at the readers", func() {
		if v := s.Readers(); len(v) != 1 {
			t.Errorf("%d readers", len(v))
		}
	})
	within(t, "the work of each second", s.EverySecond)
}
