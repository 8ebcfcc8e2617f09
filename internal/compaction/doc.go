// Package compaction decides what a compacted topic keeps: which log to clean next (Plan), which record is the last of its key
// (OffsetMap), which batches, records, delete markers and transaction markers stay (Filter), and what becomes of a batch of which
// only a part stays. The rules are those of Kafka's log cleaner, so that the result is what its tools and clients expect.
//
// It has no file, clock or goroutine: internal/partition reads and writes, within the device's budget, and gives it batches.
//
//	Plan ─► Work: dirty range, why
//	dirty batches ─► Mapper ─► OffsetMap: hash of key → newest offset
//	batches of Groups ─► Filter.Next ─► Keep (as it is) | Rewrite (fewer records, same offsets) | Empty | Drop
//
// # What is kept
//
//   - Offsets never change. A batch keeps its base and last offset whatever is left in it, so that positions of consumers and sequences
//     of producers stay true.
//   - Of each key the newest record, as far as the map knows: records behind the map's end all stay.
//   - A delete marker (a record without value) for delete.retention.ms from the first cleaning that met it. That cleaning notes the end
//     of the term in the batch: attribute bit 6, base timestamp.
//   - The last batch of each producer that is still known, without records if need be: it holds the producer's sequence. The same for the
//     batch at the end of what one cleaning writes to one file, so that the file says itself how far it reaches.
//   - A transaction marker until no batch of its transaction is left, and then for delete.retention.ms.
//   - Records of aborted transactions go at once.
//   - Records without key go: a topic has them only from a time before it was compacted.
//   - A batch whose records cannot be read stays as it is and is reported.
//
// # Bounds
//
// The map has a fixed size: what does not fit is left for the next round. A batch is unpacked record by record; only its packed form is
// in memory whole.
//
// Sources: Kafka's LogCleaner, LogCleanerManager and MemoryRecords.filterTo; KIP-58, KIP-354, KIP-534.
package compaction
