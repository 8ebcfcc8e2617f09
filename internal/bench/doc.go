// Package bench puts a load on any Kafka-compatible broker and measures what its clients feel.
//
//	schedule.go    when every record is due; what is in a record and how it is verified
//	sequence.go    loss, duplicates and order of one partition, record by record
//	recorder.go    latencies by phase and by second
//	producer.go    open loop, franz-go: a record is due when the schedule says so, however late the broker is
//	tail.go        franz-go consumer that reads everything at once
//	follower.go    the delayed reader and the mixed one
//	backlog.go     readers of old data, as cheap as a client can be
//	member.go      a reader's membership in a consumer group
//	fill.go        the old data
//	isolation.go   topics, roles, the result
//	end.go         roles beside, what is still to come at the end; nothing is waited for without a limit
//	phases.go      one phase after the other; recovery; what is sampled meanwhile
//	throughput.go  as fast as it goes, one case after the other
//	partitions.go  closed loop over many partitions
//	outside.go     what the broker costs, seen from outside: /proc, /sys, cachestat, its metrics
//	device.go      what the device can do
//
// All latencies count from the scheduled time of the record (no coordinated omission): a stalled broker makes every record that
// is due meanwhile late, not one. A record that never comes counts with the time up to the end of the run. A phase, and a second of
// a chart, has the latencies of the records that were due in it.
//
// Clients that stand for users (producers, the tail) are franz-go's. The others are made of raw requests, which makes what they ask
// for exact and leaves the cores, which they often share with the broker, to the broker: backlog readers never copy what they drop.
//
// Every record of the live topics carries its run, partition, sequence number, due time and a checksum; each reader checks every
// record. Backlog readers check that batches follow each other, and in full one partition of one response in 64.
package bench
