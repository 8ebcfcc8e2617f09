// Package classic is the state machine of one group in Kafka's classic protocol (JoinGroup, SyncGroup, Heartbeat, LeaveGroup).
// It is pure: an event and the time go in, effects come out. It knows no log, no lock, no clock and no goroutine; package groups
// around it owns persistence, timers and waiting requests.
//
//	          first join                    all joined, or rebalance timeout
//	Empty ───────────────► PreparingRebalance ───────────────► CompletingRebalance
//	  ▲                        ▲   │                                │ leader's assignment is stored
//	  │ last member left       │   └─► Empty: nobody joined         ▼
//	  └────────────────────────┴──────────────────────────────── Stable
//	                             a member comes, goes or changes
//
// # How it is driven
//
//  1. Call one event method (Join, Sync, Heartbeat, Leave, Stored, Tick) with the time.
//  2. Take Effects: answers for requests that waited (known by their tickets), and what is to be stored. Effects must be
//     carried out before the next event.
//  3. Arrange for Tick at or before NextDeadline. Heartbeats only move deadlines back, so a caller may keep an earlier alarm and
//     ask again when it rings.
//  4. Report each Store by Stored once it is durable, or has failed. Until then the members that depend on it wait.
//
// The rules, error codes and their order are those of Kafka's group coordinator (4.x, GroupMetadataManager, classic groups; KIP-394
// member ids, KIP-345 static members, KIP-559 protocol names, KIP-814 skipped assignment). Where Kafka leaves the choice open, such as a tie
// between protocols, the choice here is fixed: the leader's preference.
//
// Cooperative rebalancing (KIP-429) needs nothing here: members keep what they own because they say so in their metadata.
package classic
