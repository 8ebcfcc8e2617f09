// Package partition joins everything a byte meets inside the broker: one Log per partition, one Store for all of them.
// It is the only place where the hot path (page cache), the cold path (bypass reads) and policy (admission, tiering)
// come together.
//
// It is not a Kafka face: no wire types, no error codes, no sessions. It is not a format: segment knows the bytes.
//
//	Append ──► segment.Writer ──► page cache ──► committer (fdatasync) ──► durable bound ──► watchers, Durable
//	Read   ──► view ──► residency ──► admission.Decide
//	             hot    ─► Chunk = file range (sendfile or pread by the broker)
//	             fill   ─► device queue ─► buffered read ─► Chunk = pooled memory, and the cache holds the range again
//	             bypass ─► device queue ─► cachectl.ReadBypass ─► Chunk = pooled memory, the cache holds nothing new
//	             defer  ─► Pending; the Watch is notified when the budget gives the stream its turn
//
// # Ownership and concurrency
//
//   - Log.mu is the appender lock: it orders appends, rolls and producer state, and is held across one pwrite and never
//     across a sync or a read.
//   - Readers take no lock: they load the immutable view (segments by base offset, log start) and the readable bound,
//     and Acquire the one segment they use; when Acquire fails the segment was retired and they load the view again.
//   - The committer owns syncing. After a sync it publishes the durable bound, wakes Durable waiters and watches.
//   - With a commit journal (commitjournal.go) acks wait for a round of that, one write for all logs of the directory, and segment files follow. Two
//     bounds are apart then: durable, in the file or the journal, and filed, in the file. Whatever rewrites, moves or deletes segment files, and what
//     a start relies on without reading, goes by filed.
//   - On a rotating disk syncs and cold reads take turns (gate.go): workers of the committer ask the gate before a sync, the
//     scheduler before a read, and files are written out before they sync (writeout.go). fileCommitter.mu comes before coldQueue.mu.
//   - One function, Log.readable, says how far consumers see: the durable bound in the safe mode, the written end with
//     a flush interval. Replication will change that function and nothing else. Log.stable says how far read_committed consumers
//     see: not beyond the first record of a transaction that is open, or whose marker a crash could still take back.
//   - A stream (stream.go) is the read-ahead of one lagging reader in one partition; its chunks are whole batches in
//     pooled buffers, and those of lane bypass are shared with the other lagging readers of the log (convoy.go), of which those in
//     front wait for those close behind (together.go). Streams are filled by the device queue of the segment's directory, whose order and pace
//     admission.Scheduler decides. Cold reads therefore never run on a goroutine that answers a fetch.
//   - The goroutines of the hot windows (hotwindow.go) pin the newest bytes and drop what real-time readers have passed, as
//     hotplan.go says. Neither appends nor reads wait for it. A segment's pin is closed before the segment is retired.
//   - Harm that cold reads do to the real-time path is counted where it happens (harm.go, one atomic addition each); a loop
//     (budget.go) gives the counts to one admission.Controller per directory and its answers to the device queues. Its lock,
//     budgets.mu, comes before coldQueue.mu.
//   - Work that goes over logs waits for no device that others do not need: side by side for what lies in different directories (places.go), and
//     with what is known in memory, where it only plans (ask.go). Which directories have something of a partition is known in memory, too (names.go): no other is
//     asked when it is made or deleted. A stop closes directories side by side.
//   - Compaction (compact*.go) cleans one log at a time, but for those that a device does not answer. Under Log.maintenance it swaps segments in the view; segments that it rewrites
//     are claimed, and those that a migration moves are noted (compactState), so that no segment has copies of two kinds.
//   - Lock order: Store.mu, Log.syncing, Log.maintenance, Log.mu, cursor.mu, cursorSet.mu, convoy.mu, coldQueue.mu. None is held across device I/O but Log.mu
//     (one pwrite), Log.maintenance (renames, syncs and unlinks of the segments it is about) and Log.syncing (a sync of the log's file).
//     journalCommitter.mu comes after Log.mu.
//
// # Crash guarantees
//
// Durable(next) returns nil only after fdatasync of every segment below next (and of the directory for a new segment), or of a round of the commit
// journal that has what they lack. A start replays that (replay.go) before it opens any segment.
// A failed write or sync fences the log directory for good: no retry, no later ack, nothing above the durable bound is
// served. Recovery (load.go) reads only what may be torn: from the recovery point on. What lies below it and is damaged
// is quarantined and reported, never cut. Segments found in two directories are a migration that a crash interrupted;
// the colder copy is complete (its name is the commit point) and is kept. A compaction that a crash interrupted is finished
// from the .swap file, or never happened (segment.FinishSwaps).
package partition
