package partition_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"lagoon/internal/partition"
	"lagoon/segment"
)

// TestPinnedSegmentOfADeletedTopic: a consumer still holds a segment that retention dropped, and one that was migrated, when
// the topic is deleted and another of the same name made. Letting go must not touch the new topic's files.
func TestPinnedSegmentOfADeletedTopic(t *testing.T) {
	for _, migrated := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			p := fillSegments(t, w, 3)
			noErr(t, w.open())
			l, err := w.log(p)
			noErr(t, err)
			var chunk *partition.Chunk
			for range 3 { // the first read may have to open the file
				res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "slow"}, From: 0, MaxBytes: 100, MustServe: true})
				noErr(t, err)
				if chunk = res.Chunk; chunk != nil {
					break
				}
				synctest.Wait()
			}
			if chunk == nil {
				t.Fatal("nothing to hold")
			}
			if migrated {
				n, err := w.migrate(p)
				if err != nil || n == 0 {
					t.Fatalf("%d segments moved, %v", n, err)
				}
			} else {
				noErr(t, w.trim(p, p.written))
			}
			noErr(t, w.drop(p.topic))
			again, err := w.create("orders", 2, 1, p.topic.cfg)
			noErr(t, err)
			c := again.parts[0].client("b", 8)
			noErr(t, errors.Join(w.send(c, 2, 100), w.ack(c)))
			chunk.Release()
			name := again.parts[0].name() + "/" + segment.LogName(0)
			w.diskOf(t, name) // fails when it is gone
			noErr(t, w.close())
			w.live()
		})
	}
}

// TestDeleteBesideCommits deletes topics whose records are being synced, sealed and migrated: no descriptor that is closed
// under a sync is taken for a broken disk.
func TestDeleteBesideCommits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		noErr(t, w.open())
		for round := range byte(60) {
			topic, err := w.create("orders", round+1, 2, smallSegments())
			noErr(t, err)
			var wg, started sync.WaitGroup
			started.Add(len(topic.parts))
			for _, p := range topic.parts {
				l, err := w.log(p)
				noErr(t, err)
				wg.Go(func() {
					for i := range 100 {
						if i == 5 {
							started.Done()
						}
						a, err := l.Append(context.Background(), partition.AppendRequest{Records: batch("x", 2, 500, nil, 1)})
						if err == nil && a.Base > 20 {
							err = l.Durable(context.Background(), a.Next)
						}
						if errors.Is(err, partition.ErrClosed) {
							return
						}
						if err != nil {
							t.Errorf("append while the topic goes: %v", err)
							return
						}
					}
				})
			}
			started.Wait()
			noErr(t, w.drop(topic))
			wg.Wait()
			if err := w.s.Fenced(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		noErr(t, w.close())
		w.live()
	})
}
