package partition_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// unwritten is all but appends and what is told of space: what an append waits for keeps others from the log's lock, and no bubble's time passes then.
const unwritten = vfs.OpAny &^ (vfs.OpWrite | vfs.OpAllocate | vfs.OpUsage)

// answers runs what may wait for a device, and gives its error; until it has come to its end that is errNoEnd.
func answers(fn func() error) (ended func() error) {
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = fn()
	}()
	return func() error {
		synctest.Wait()
		select {
		case <-done:
			return err
		default:
			return errNoEnd
		}
	}
}

var errNoEnd = errors.New("it waits")

// has tells whether a disk has a partition's directory.
func (h *hungWorld) has(disk int, p *partTruth) bool {
	_, err := h.disks[disk].Stat(p.name())
	return err == nil
}

// fillSegments makes some segments in p.
func (h *hungWorld) fillSegments(t *testing.T, p *partTruth) {
	t.Helper()
	c := p.client("a", 0)
	for range 12 {
		noErr(t, errors.Join(h.send(c, 2, 600), h.ack(c)))
	}
	synctest.Wait()
}

// TestHungDirectoryAndTopics: topics are made and deleted in the directories that answer. What lies on a device that does not is out of service at
// once, and gone when that answers again.
func TestHungDirectoryAndTopics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := deafWorld(w, unwritten, "")
		defer h.release()
		noErr(t, w.open())
		orders, err := w.create("orders", 1, 2, smallSegments())
		noErr(t, err)
		bad, good := homes(t, w, orders)
		pair, err := w.create("pair", 2, 2, smallSegments())
		noErr(t, err)
		there, here := homes(t, w, pair)
		late, err := w.create("late", 3, 2, smallSegments())
		noErr(t, err)
		a := bad.client("a", 0)
		h.fillSegments(t, good)
		h.hangDisk(0)
		noErr(t, w.send(a, 2, 600))
		stuck := answers(func() error { return w.ack(a) })
		time.Sleep(6 * time.Second) // it is known to hang
		if err := stuck(); !errors.Is(err, errNoEnd) {
			t.Fatalf("an ack from the device that hangs: %v", err)
		}

		var made *topicTruth
		creation := answers(func() (err error) {
			made, err = w.create("made", 4, 4, smallSegments())
			return err
		})
		noErr(t, creation())
		for _, p := range made.parts {
			if h.has(0, p) || !h.has(1, p) {
				t.Errorf("%s was made in the directory that hangs", p.name())
			}
			h.fillSegments(t, p)
		}
		deletions := map[*topicTruth]func() error{made: answers(func() error { return w.drop(made) })}
		if err := deletions[made](); err != nil || h.has(1, made.parts[0]) {
			t.Errorf("a topic that lies elsewhere is deleted: %v", err)
		}
		for _, topic := range []*topicTruth{pair, late} {
			deletions[topic] = answers(func() error { return w.drop(topic) })
			if err := deletions[topic](); !errors.Is(err, errNoEnd) {
				t.Errorf("a deletion of what lies on the device that hangs came to an end: %v", err)
			}
		}
		if h.has(1, here) {
			t.Error("what lies elsewhere of a deleted topic is still there")
		}
		for _, p := range pair.parts {
			if _, err := w.log(p); err == nil {
				t.Errorf("%s is served, and deleted", p.name())
			}
		}
		h.fillSegments(t, good)

		h.release()
		noErr(t, stuck())
		for topic, ended := range deletions {
			if err := ended(); err != nil {
				t.Errorf("%s: %v", topic.name, err)
			}
		}
		if h.has(0, there) {
			t.Error("a deleted partition is still there when the device answers again")
		}
		noErr(t, w.close())
		noErr(t, w.open())
		w.verify()
		noErr(t, w.close())
	})
}

// TestHungDirectoryAndMigratedTopics: a deletion that a cold tier does not answer takes what lies in the hot one of other topics, and of its own what no
// migration is at.
func TestHungDirectoryAndMigratedTopics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := deafWorld(w, vfs.OpAny, "")
		defer h.release()
		noErr(t, w.open())
		orders, err := w.create("orders", 1, 2, smallSegments())
		noErr(t, err)
		moving, quiet := homes(t, w, orders)
		h.fillSegments(t, moving)
		h.hangDisk(2)
		noErr(t, w.submitMoves(moving))
		<-h.hung
		deletion := answers(func() error { return w.drop(orders) })
		if err := deletion(); !errors.Is(err, errNoEnd) || h.has(1, quiet) {
			t.Errorf("deleted while a migration waits for the cold tier: %v, what no migration is at is there: %v", err, h.has(1, quiet))
		}
		h.release()
		if err := deletion(); err != nil {
			t.Error(err)
		}
		for disk := range w.disks {
			if h.has(disk, moving) {
				t.Errorf("disk %d has the deleted partition", disk)
			}
		}
		noErr(t, w.close())
		noErr(t, w.open())
		w.verify()
		noErr(t, w.close())
	})
}

// TestHungDirectoryAndCreation: who makes a partition where a device hangs that nobody knew to hang is told so, and the next one is made elsewhere.
// What was begun does not come into service, and a deletion takes it.
func TestHungDirectoryAndCreation(t *testing.T) {
	for _, kinds := range []vfs.Kind{vfs.OpMkdir, vfs.OpSync, vfs.OpAny} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := deafWorld(w, kinds, "")
				defer h.release()
				noErr(t, w.open())
				h.hangDisk(0)
				began := time.Now()
				unlucky, err := w.create("unlucky", 1, 1, smallSegments())
				if took := time.Since(began); !errors.Is(err, partition.ErrNoAnswer) || took > 30*time.Second {
					t.Fatalf("a topic on a device that hangs: %v after %v", err, took)
				}
				if _, err := w.s.Create(context.Background(), "unlucky", unlucky.id, 0, smallSegments()); !errors.Is(err, partition.ErrNoAnswer) {
					t.Errorf("the same one again: %v", err)
				}
				began = time.Now()
				next, err := w.create("next", 2, 3, smallSegments())
				noErr(t, err)
				if took := time.Since(began); took > 0 {
					t.Errorf("the next topic took %v", took)
				}
				for _, p := range next.parts {
					if !h.has(1, p) {
						t.Errorf("%s is not in the directory that answers", p.name())
					}
				}
				deletion := answers(func() error { return w.drop(unlucky) })
				if err := deletion(); !errors.Is(err, errNoEnd) {
					t.Errorf("deleted while it is being made: %v", err)
				}
				h.release()
				if err := deletion(); err != nil || h.has(0, unlucky.parts[0]) {
					t.Errorf("deleted when the device answers: %v", err)
				}
				if _, err := w.log(unlucky.parts[0]); err == nil {
					t.Error("it is served")
				}
				time.Sleep(10 * time.Second)
				again, err := w.create("unlucky", 3, 1, smallSegments())
				noErr(t, err)
				if !h.has(0, again.parts[0]) {
					t.Error("the directory that answers again, and has fewest partitions, gets none")
				}
				h.fillSegments(t, again.parts[0])
				noErr(t, w.close())
				noErr(t, w.open())
				w.verify()
				noErr(t, w.close())
			})
		})
	}
}

// TestHungDirectoryAndStop: a stop ends in its time, and what lies in directories that answer is closed cleanly.
func TestHungDirectoryAndStop(t *testing.T) {
	for disk, tier := range []string{"t0", "t0", "t1"} {
		for _, journal := range []int64{0, 1 << 20} {
			t.Run(fmt.Sprintf("disk %d journal %d", disk, journal), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					kinds, suffix := vfs.OpSync, ".log"
					switch {
					case tier == "t1":
						kinds, suffix = vfs.OpAny, ""
					case journal > 0:
						kinds, suffix = vfs.OpWrite, ".0" // the journal's file
					}
					h := deafWorld(w, kinds, suffix)
					defer h.release()
					w.change = func(o *partition.Options) {
						for i := range o.Dirs[:2] {
							o.Dirs[i].JournalBytes = journal
						}
					}
					noErr(t, w.open())
					orders, err := w.create("orders", 1, 2, smallSegments())
					noErr(t, err)
					first, second := homes(t, w, orders)
					h.fillSegments(t, first)
					h.fillSegments(t, second)
					h.hangDisk(disk)
					if tier == "t1" {
						noErr(t, w.submitMoves(first))
						<-h.hung
					} else {
						p := []*partTruth{first, second}[disk]
						c := p.client("hung", 0)
						for stuck := false; !stuck; { // with a journal the sync of a file that rolls can be faster
							noErr(t, w.send(c, 2, 600))
							synctest.Wait()
							select {
							case <-h.hung:
								stuck = true
							default:
							}
						}
					}
					time.Sleep(5 * time.Second)
					ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
					defer cancel()
					began := time.Now()
					err = w.s.Close(ctx)
					if took := time.Since(began); took != 4*time.Second || err == nil || !strings.Contains(err.Error(), "does its disk answer") {
						t.Errorf("closed in %v: %v", took, err)
					}
					w.s = nil
					for i, m := range w.disks[:2] {
						if _, err := m.Stat(segment.CleanShutdownFile); (err == nil) != (i != disk) {
							t.Errorf("disk %d closed cleanly: %v", i, err)
						}
					}
					w.disks = w.disks.kill()
					h.release()
					synctest.Wait()
					h.board.set(disk, nil)
					noErr(t, w.open())
					w.verify()
					w.retry()
					noErr(t, w.close())
				})
			})
		}
	}
}

// TestHungDirectoryAndStart: a directory that does not answer is left out of a start. What lies there is offline, nothing is made in its place, and it is
// all there at a start at which it answers; what lies elsewhere is served.
func TestHungDirectoryAndStart(t *testing.T) {
	for disk := range diskTiers {
		t.Run(fmt.Sprint(disk), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := deafWorld(w, vfs.OpAny, "")
				defer h.release()
				noErr(t, w.open())
				orders, err := w.create("orders", 1, 2, smallSegments())
				noErr(t, err)
				first, second := homes(t, w, orders)
				gone, err := w.create("gone", 2, 2, smallSegments())
				noErr(t, err)
				for _, p := range []*partTruth{first, second, gone.parts[0], gone.parts[1]} {
					h.fillSegments(t, p)
				}
				for _, p := range []*partTruth{first, gone.parts[0]} {
					if n, err := w.migrate(p); err != nil || n == 0 {
						t.Fatalf("%d segments moved, %v", n, err)
					}
				}
				noErr(t, w.close())

				h.hangDisk(disk)
				began := time.Now()
				noErr(t, w.open())
				if took := time.Since(began); took < 10*time.Second || took > time.Minute {
					t.Errorf("started after %v", took)
				}
				lost, whole := first, second // also when it is the cold tier: that has the oldest segments of the first
				if disk == 1 {
					lost, whole = second, first
				}
				l, err := w.log(lost)
				noErr(t, err)
				if err := l.Err(); !errors.Is(err, partition.ErrFenced) || !strings.Contains(err.Error(), "did not answer at the start") {
					t.Errorf("%s: %v", lost.name(), err)
				}
				c := whole.client("b", 7)
				noErr(t, errors.Join(w.send(c, 2, 600), w.ack(c)))
				w.s.Retain(time.Now())
				gone.deleted = true
				deletion := answers(func() error { return w.s.Delete(context.Background(), "gone", gone.id) })
				if err := deletion(); !errors.Is(err, partition.ErrNoAnswer) {
					t.Errorf("a topic that the directory may have something of is deleted: %v", err)
				}
				for _, p := range gone.parts {
					for i := range w.disks {
						if i != disk && h.has(i, p) {
							t.Errorf("disk %d has the deleted %s", i, p.name())
						}
					}
				}
				made, err := w.create("made", 3, 2, smallSegments()) // new ones need nothing of it
				noErr(t, err)
				h.fillSegments(t, made.parts[0])
				noErr(t, w.drop(made))
				time.Sleep(time.Minute)
				noErr(t, w.close())
				for i, m := range w.disks[:2] {
					unclean := disk == 2 && h.has(i, lost) // it was not opened; and what hung was closed cleanly before
					if _, err := m.Stat(segment.CleanShutdownFile); (err == nil) == unclean {
						t.Errorf("disk %d closed cleanly: %v", i, err)
					}
				}

				h.release()
				synctest.Wait()
				noErr(t, w.open())
				w.verify()
				w.retry()
				noErr(t, w.close())
			})
		})
	}
}

// TestHungDirectoryAndGaps: records in the middle of a log whose directory did not answer at the start are not passed over.
func TestHungDirectoryAndGaps(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint(clean), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := deafWorld(w, vfs.OpAny, "")
				defer h.release()
				w.change = func(o *partition.Options) { o.CheckpointInterval = 1000 * time.Hour }
				noErr(t, w.open())
				orders, err := w.create("orders", 1, 2, smallSegments())
				noErr(t, err)
				for _, p := range orders.parts {
					h.fillSegments(t, p)
				}
				p := orders.parts[0]
				l, err := w.log(p)
				noErr(t, err)
				sv := l.Segments()[1]
				_, err = w.s.Migrator().Submit(tiering.Move{Topic: "orders", Partition: p.index, Base: sv.Base, SizeBytes: sv.SizeBytes, From: "t0", To: "t1"})
				noErr(t, err)
				synctest.Wait()
				if got := l.Segments(); len(got) < 4 || got[0].Tier != "t0" || got[1].Tier != "t1" || got[2].Tier != "t0" {
					t.Fatalf("%+v", got)
				}
				if clean {
					noErr(t, w.close())
				} else {
					w.abandon()
					w.disks = w.disks.kill()
				}
				h.hangDisk(2)
				noErr(t, w.open())
				for i, p := range orders.parts {
					l, err := w.log(p)
					noErr(t, err)
					if err := l.Err(); (err != nil) != (i == 0) || err != nil && !strings.Contains(err.Error(), "nowhere") {
						t.Errorf("%s: %v", p.name(), err)
					}
				}
				noErr(t, w.close())
				h.release()
				synctest.Wait()
				noErr(t, w.open())
				w.verify()
				noErr(t, w.close())
			})
		})
	}
}

// TestHungDirectoryAndStoppedStart: a start that waits for a device can be given up, and what it did is not taken for a clean stop.
func TestHungDirectoryAndStoppedStart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := deafWorld(w, vfs.OpList|vfs.OpStat, "-0")
		defer h.release()
		noErr(t, w.open())
		orders, err := w.create("orders", 1, 2, smallSegments())
		noErr(t, err)
		h.fillSegments(t, orders.parts[0])
		noErr(t, w.close())
		noErr(t, w.openOnly())
		h.hangDisk(0)
		ctx, stop := context.WithCancel(context.Background())
		load := answers(func() error {
			return w.s.Load(ctx, []partition.TopicSpec{{Topic: "orders", ID: orders.id, Partitions: 2, Config: orders.cfg}})
		})
		<-h.hung
		if err := load(); !errors.Is(err, errNoEnd) {
			t.Fatalf("the start does not wait: %v", err)
		}
		stop()
		time.Sleep(5 * time.Second)
		if err := load(); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		if err := w.s.Close(ctx); err != nil { // it asks nothing of the device: no partition of it was opened
			t.Error(err)
		}
		w.s = nil
		for i, m := range w.disks[:2] {
			if _, err := m.Stat(segment.CleanShutdownFile); err == nil {
				t.Errorf("disk %d says that all in it was closed", i)
			}
		}
		h.release()
		synctest.Wait()
		noErr(t, w.open())
		w.verify()
		noErr(t, w.close())
	})
}
