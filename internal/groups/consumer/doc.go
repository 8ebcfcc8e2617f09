// Package consumer is the state machine of one group in the protocol of KIP-848 (ConsumerGroupHeartbeat), where the broker assigns.
// It is pure: an event, the time and the topics go in, an answer and records come out. It knows no log, no lock, no clock and no
// goroutine; package groups around it owns persistence, timers and waiting requests.
//
//	subscriptions, topics change          assignor                    each member by its heartbeats
//	        group epoch + 1 ─────────► target assignment of that epoch ─────────► current assignment, member epoch
//
// A member goes from its current assignment to the target in steps, so that no partition has two owners:
//
//	        keeps everything, or what it gains is free
//	 ┌──────────────────────────────────────────────────────────┐
//	STABLE ──► UNREVOKED_PARTITIONS: it is told what it keeps ──► STABLE at the target's epoch
//	   │        │ and stays at its epoch until its heartbeat        ▲
//	   │        │ names nothing else as owned                       │
//	   │        ▼                                                   │ the others have let go
//	   └──────► UNRELEASED_PARTITIONS: at the target's epoch, waits for partitions of others
//
// # How it is driven
//
//  1. Call one event method with the time.
//  2. Take Records. Store them in one batch, then call Commit; or, when that fails, Rollback: the group is as it was before the event.
//  3. Answer when the records are durable.
//  4. Arrange for Tick at or before NextDeadline. Heartbeats only move deadlines back.
//
// # Records are the state
//
// Every change is a Record, made by Group.put, and the inverse of a record is the record of what was there before. So the same code
// loads a group, changes it and takes a change back. Only deadlines are not in records: sessions begin anew after a start.
//
// # Commits at older epochs
//
// What a member has keeps the epoch at which it was assigned (KIP-1251). A commit at an older epoch than the member's is taken if all its partitions are
// the member's since then; it was on its way while the epoch moved on. Without that, a commit that is fenced for nothing makes an exactly-once
// application abort.
//
// # Members of the classic protocol
//
// A group may have both kinds of members while its clients are upgraded or downgraded. Those of the classic protocol (classic.go) are
// given their part of the assignment by JoinGroup and SyncGroup: a generation is their member epoch, REBALANCE_IN_PROGRESS makes them join
// again. A group converts when the first member of the other protocol comes, and back when the last one has gone; package groups does that
// with FromClassic and ToClassic.
//
// Rules, error codes and their order are those of Kafka's group coordinator (4.3, GroupMetadataManager); assignors are our own.
package consumer
