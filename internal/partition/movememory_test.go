package partition_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// moving gives a topic of some small segments in a world.
func moving(t *testing.T, w *world) *partTruth {
	t.Helper()
	noErr(t, w.open())
	topic, err := w.create("orders", 1, 1, smallSegments())
	noErr(t, err)
	c := topic.parts[0].client("a", 5)
	for range 10 {
		noErr(t, errors.Join(w.send(c, 1, 1000), w.ack(c)))
	}
	return topic.parts[0]
}

// A migration that waits for chunk memory is not waited for by the deletion of its topic.
func TestDeletionOfATopicThatMovesWithoutMemory(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := moving(t, w)
		var all []*cachectl.Buffer
		for b, ok := w.pool.TryGet(); ok; b, ok = w.pool.TryGet() {
			all = append(all, b)
		}
		noErr(t, w.submitMoves(p))
		synctest.Wait()
		if w.pool.Stats().Waiting == 0 {
			t.Error("the migration does not wait for memory: the test looks at nothing")
		}
		noErr(t, w.drop(p.topic))
		for _, b := range all {
			b.Release()
		}
	})
}

// While a migration waits for its turn it holds no chunk memory: who has the turn may wait for that.
func TestMigrationHoldsNoMemoryBetweenTurns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var once sync.Once
		w.trace = func(_ int, op vfs.Op) {
			if op.Kind == vfs.OpRead && isLog(op.Name) && op.Len >= 1000 {
				once.Do(func() { w.s.Migrator().Pause("test") })
			}
		}
		p := moving(t, w)
		noErr(t, w.submitMoves(p))
		synctest.Wait()
		if n := len(w.s.Migrator().Snapshot().Migrations); n == 0 {
			t.Fatal("no migration is under way")
		}
		if n := w.pool.Stats().InUseBytes; n > 0 {
			t.Errorf("a migration that waits holds %d bytes", n)
		}
		w.s.Migrator().Resume()
		synctest.Wait()
	})
}
