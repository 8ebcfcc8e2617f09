// Package rawkafka is a Kafka client for measurements: prebuilt batches, responses that are counted and dropped (in the kernel,
// without a copy), no goroutine and next to no CPU, so that what is measured is the broker. Everything that needs a real client
// uses one.
//
//	client.go   connection, requests in lockstep or several in flight, produce
//	fetch.go    fetch, streaming: batch headers only, or the records in one buffer
//	batch.go    builds batches, checks them, walks their records
//
// A Conn is used by one goroutine; Close may come from any. It speaks plain TCP to one broker. Lengths that a broker claims are
// checked against what is left of the response before anything is allocated.
package rawkafka
