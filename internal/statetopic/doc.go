// Package statetopic is what the coordinators of groups and of transactions have in common: each keeps its state in a compacted topic in
// Kafka's own format, one shard for each partition, found by the hash of the group or transactional id. Here are the log under a shard, the
// hash, and the fields of records; what the records mean, when they are written and who waits for them is each coordinator's own affair.
package statetopic
