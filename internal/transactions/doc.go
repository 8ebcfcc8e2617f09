// Package transactions is the transaction coordinator: it owns what internal/transactions/txn, the state machine of one transactional
// id, has no hands for. It keeps the ids in the internal topic __transaction_state, writes the markers that end transactions, and
// aborts those that run for too long.
//
// It knows no wire format of requests and no partition: Options.WriteMarker puts a marker where it belongs.
//
//	broker ─► InitProducer, AddPartitions, End ─► shard lock ─► txn.Txn ─► record appended ─► Pending: the answer waits for durability
//	                                                               │ PrepareCommit, PrepareAbort
//	                                                               ▼
//	              a goroutine: record durable ─► markers to all partitions ─► all durable ─► CompleteCommit, CompleteAbort
//	expiry loop ─► shard lock ─► txn.Txn.Expire
//
// # What is promised
//
//   - Nothing is answered, and nothing done, before the record that says so is on stable storage. The record of a complete transaction
//     is not waited for: what follows in the same partition of the topic is durable only with it.
//   - A transaction whose end is on record ends: after a crash the markers are written again, those included that were there already.
//     Between its end and its last marker the id takes part in nothing else, so a marker that comes twice ends nothing.
//   - A record that cannot be read harms no other id: it is reported, counted and left where it is.
//
// # Shards
//
// A shard is one partition of the topic, with the ids that hash to it as in Kafka, and a lock for changes. Records are appended under it,
// so that the log has them in the order in which memory changed; nobody waits for a device under it but for one pwrite, and once in a
// thousand producer ids for the catalogue, which reserves the next ones. A second lock, for the memory, is held across neither: lists and
// metrics need that one alone.
//
// # Formats
//
// Kafka's own: TransactionLogKey 0, TransactionLogValue 1; 0 is read as well. The coordinator epoch in markers is the leader epoch of
// the shard's partition.
package transactions
