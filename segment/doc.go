// Package segment is the on-disk format: Kafka's own files, byte for byte, and what keeps them right. It validates
// batches, appends them, finds them again, and recovers after a crash. It knows one partition directory in one tier.
//
// It is not: a log (segments are put in a row by internal/partition), a cache policy (cachectl, admission), a migrator
// (tiering). It starts no goroutine, takes no decision about time or retention, and decompresses nothing.
//
//	 producer's bytes                                     <base>.log         batches, one after the other
//	      │ ValidateBatch, ProducerState.Check            <base>.index       offset → position, every 4 KiB
//	      ▼                                               <base>.timeindex   timestamp → offset
//	AssignOffsets ─► Writer.Append ── one pwrite ──►      <offset>.snapshot  producer state (Kafka's part)
//	                    │  index in memory                <offset>.lagoon-batches   (ours: batches 2 to 5)
//	                    │  SyncData: durable              <base>.txnindex      transactions that markers here aborted
//	                    │                                 <base>.lagoon-index  index checkpoint of the active segment
//	                    ▼                                 leader-epoch-checkpoint, partition.metadata
//	    Reader (shared view, refcounted) ─ Find ─► Extent: position and length of whole batches
//	      active ──── Seal ────► sealed: immutable, synced, index files written
//
// The formats are specified in docs/formats, one page per kind of file.
//
// # Validation
//
// ValidateBatch is Kafka's LogValidator as far as no decompression is needed. Records of uncompressed batches are
// walked; of compressed ones the header is believed. Every length that comes from a client or a file is bounded by the
// bytes that are really there before it is used.
//
// # Concurrency and ownership
//
// A Writer has one appender; SyncData runs beside it. Readers of the active segment look up the index under a short
// read lock and read the file without any: bytes below the size never change. A Reader is acquired before use and
// released after; one atomic word packs the number of users with "retired" and "closing", so that acquiring a retired
// reader fails, teardown runs exactly once after the last user, and the FileCache takes away idle descriptors only.
// Find does not allocate. A ProducerState belongs to the partition's append lock.
//
// The FileCache bounds the descriptors and the index memory of all sealed segments. The index of a sealed segment is
// loaded whole, once, when a read seeks; reads that go on where they stopped (the hint of Find) do not need it.
//
// # What survives a crash
//
//	SyncData returned nil   everything appended before it began, and the file's name
//	Seal returned nil       the log and both index files; the segment opens by its size alone
//	SyncData failed         nothing more is certain: the error is sticky, the kernel is not asked again
//	power cut while active  Recover: headers from the newest index checkpoint entry to the recovery point, checksums
//	                        from there to the end
//	Cleaned.Commit         the new segment, under its swap name; FinishSwaps gives it its place
//	returned nil
//	power cut while sealing index files missing or the log above the recovery point unsynced: Recover it, then Seal
//	                        again, although a younger segment exists
//
// Torn is not corrupt. Above the recovery point the first bad byte ends the log: the tail is cut, and kept in
// quarantine/ when a valid batch is in it. Below the recovery point nothing is ever cut: a bad range is a hole, reported
// as CorruptError, stepped over by reads, its offsets are never used again. After such damage nothing above is cut
// either, because a misplaced block may have moved the end of the durable bytes. Offsets that are missing because the
// file ends early are reported and covered by an empty batch.
//
// A header's length, base offset and leader epoch lie outside the batch checksum. Recovery therefore keeps a batch only
// when the following header fits or its own checksum does. A flipped leader epoch is the one damage that nothing here
// can see.
//
// Indexes carry no checksum. They are hints: every entry is checked for order and bounds when loaded, and against the
// batch header it points at when used; a wrong one leads to a rebuild from the log. MaxTimestamp is such a hint too;
// VerifyMaxTimestamp is for deciding to delete.
//
// # Non-obvious
//
//   - A transaction's records may lie in older segments than the marker that ends it, so only a state that has seen those (Replay,
//     CollectAborted) can make a .txnindex anew.
//   - The active segment has no .index on disk. Kafka's tools see index files from Seal or a clean Close on.
//   - A Kafka index entry holds the last offset of a batch and the position where it begins, so the entry for an offset
//     may point before the batch that holds it, never behind.
//   - Preallocated space lies behind the file's size (FALLOC_FL_KEEP_SIZE); truncating to the size at Seal gives it back.
//   - A failed write is truncated away at once: bytes left behind the end could be taken for a batch after a crash.
//   - Kafka's snapshot keeps only the last batch of each producer, so that a Kafka broker that restarts refuses a retry of
//     an older one. The sidecar keeps all five.
package segment
