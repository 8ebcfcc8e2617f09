// Package txn is the state machine of one transactional id (KIP-98, KIP-360, KIP-890): pure, without I/O, clock or goroutine.
//
// An event is given to a method with the time it came at. The answer is a Kafka error or None; when the state has changed, Changed
// tells so and Record is what to write before anybody hears of it. The coordinator (internal/transactions) writes records in the
// order of the changes, so that a state is as durable as its record, and does what a state asks for:
//
//	        InitProducer               AddPartitions               End, Expire, InitProducer of another
//	(new) ───────────────► Empty ───────────────────────► Ongoing ───────────────────────────► PrepareCommit, PrepareAbort
//	                         │                               ▲                                        │ markers are durable
//	                         │ End(abort), protocol 2         └────────── AddPartitions ◄──┐           ▼
//	                         └──────────► PrepareAbort                                    └── CompleteCommit, CompleteAbort
//
// Kafka has a state PrepareEpochFence between Ongoing and PrepareAbort, for the time in which the record of the abort is not durable
// yet. Here the change is one step: the epoch is raised and the abort prepared together. The state exists for records only.
//
// # Epochs
//
// In protocol 1 InitProducer raises the epoch, and so does an abort that the client has not asked for. In protocol 2 every End raises
// it as well: the markers carry the new epoch, so that nothing of the ended transaction can come after them. An epoch that is used up
// (32766; one more is kept for markers) gives way to a new producer id with epoch 0.
package txn
