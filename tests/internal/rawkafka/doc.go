// Package rawkafka is a Kafka client for measurements: prebuilt batches, responses that are counted and dropped, no
// goroutine and next to no CPU, so that what is measured is the broker. Everything that needs a real client uses one.
//
// A Conn is used by one goroutine.
package rawkafka
