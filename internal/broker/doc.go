// Package broker is Lagoon's Kafka face: it accepts connections, decodes requests, asks the partitions and the
// catalogue, and answers. One file per API; apis.go holds the one table of them.
//
// It is not a log (internal/partition), not a catalogue (internal/metadata) and decides nothing about lanes, tiers or
// residency: a fetch asks each partition and gets records, "pending" or nothing. Groups are kept by internal/groups;
// here is their face on the wire. There is no TLS and no SASL: every client is the user ANONYMOUS.
//
//	           reader goroutine                              response goroutine (only while something is owed)
//	socket ─► frame ─► header ─► table ─┬─ ordinary: decode, handle, encode ─► ┌───────┐
//	          budget                    ├─ Produce: append in arrival order ──► │ queue │ ─► wait durable ─► encode ─► socket
//	                                    └─ Fetch: decode ─────────────────────► └───────┘ ─► read, park ──► head + payloads
//
// # Order
//
// Requests of a connection are begun in the order in which they arrive and answered in the same order. Reading goes on
// while a response waits (for durability, in a long poll), so pipelined produce requests reach the log without a pause;
// a parked fetch delays the responses behind it, as in Kafka. The queue is bounded in responses and in bytes: a client
// that does not read is not read from.
//
// # Memory
//
// A frame's buffer grows with the bytes that have arrived and is charged to one budget for all connections; see budget.
// Produce hands the frame's own bytes to the log and releases the frame once they are written, before it waits for
// durability. Fetch sends file ranges with sendfile (large) or through one pooled buffer (small), and memory as it is;
// what a partition lent is released once, sent or not. An idle connection holds one goroutine and about 2 KiB.
//
// # Hostile input
//
// Sizes and counts are checked before anything is allocated for them, bodies are limited per API, tags are counted and
// not kept. What cannot be answered (no such key or version, a body that does not parse) closes the connection; a panic
// in a decoder or handler closes that connection only, with a log line. Log lines that clients can cause are rationed.
// Errors become Kafka codes in one place, errcode.go; the text of an unexpected error stays in the log.
//
// # Non-obvious
//
//   - ApiVersions is always answered with response header v0, and a version above ours with a v0 body.
//   - Produce 0 to 2 are advertised and refused: librdkafka before 2.11 wants to see version 0.
//   - A fetch looks twice before it parks: the first time without a Watch, because most fetches are answered at once and
//     a registration that nobody waits for is only to be undone.
//   - Records that came from a device are sent at once, min_bytes or not: giving them back would mean to read them again.
//   - The wait of a long poll is in no latency figure; it has a stage of its own.
//   - Strings of Produce and Fetch requests alias the frame. What outlives it is taken from the catalogue or copied.
//
// # Locks
//
// Broker.mu (connections), conn.mu (queue), fetchSession.mu before sessionCache.mu, budget.mu: none is held while another
// component is called or a socket is used.
package broker
