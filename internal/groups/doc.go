// Package groups coordinates consumer groups: it owns what internal/groups/classic and internal/groups/consumer (KIP-848), the state machines of one
// group, have no hands for, and takes groups from one protocol to the other.
// It keeps groups and committed offsets in the internal topic __consumer_offsets, runs the timers, and holds the requests that wait.
//
// It knows no wire format of requests (the broker translates).
//
//	broker ─► Join, Sync, Heartbeat, Leave ─► shard lock ─► classic.Group ─► effects ─┬─► waiting requests are answered
//	broker ─► ConsumerHeartbeat ─────────────► shard lock ─► consumer.Group ─► records: append, or roll back; the answer waits until they are durable
//	broker ─► Commit ────────────────────────► shard lock ─► append ─► Durable          ├─► records: append, durable, Stored
//	alarm of the shard ──────────────────────► shard lock ─► classic.Group.Tick          └─► who reads what: Owner, lock-free
//
// # Shards
//
// A shard is one partition of the topic, with the groups whose id hashes to it as in Kafka (String.hashCode modulo the number of
// partitions), one lock and one alarm. Records of a group are appended under the lock, so that the log has them in the order in which
// memory changed. Nobody waits for a device under it but for one pwrite.
//
// # What is promised
//
//   - A commit is acknowledged when it is on stable storage (as the topic's flush setting has it), and served only then: a
//     fetched offset cannot be taken back by a crash. Until then the older one is served; see versions.
//   - Offsets of a deleted topic are deleted on stable storage before another topic can have its name (TopicDeleted), with those that open
//     transactions commit. What a crash leaves of them is dropped when it is loaded.
//   - A generation begins when its assignment is stored. A restarted coordinator knows its members by their ids.
//   - A record that cannot be read harms no other: it is reported, counted and kept; see load.go.
//   - What a record says does not depend on others with the same key, or with keys that it replaces: the topic is compacted
//     (cleanup.policy=compact), which is what keeps it, and the time of a start, in proportion to what it holds.
//
// # Formats
//
// Keys and values are Kafka's own, so tools that read the topic work: OffsetCommitKey 1, OffsetCommitValue 3 (1 with an expiry of its own),
// GroupMetadataKey 2, GroupMetadataValue 3. All versions up to 4 are read. Groups of the consumer protocol: keys 3 and 5 to 8 and 16, values 0.
//
// # Locks
//
// shard.mu, then owners.mu. Under shard.mu the log is appended to and Options.Exists asked; owners.mu is held for copying maps only.
package groups
