// Package history records what producers sent, what the broker acknowledged and what consumers saw, and finds every
// broken promise in it: the oracle of the crash tests.
//
// It is not a load generator and knows no protocol. Values describe themselves: who sent them, to which partition, as
// which one in a row, and the rest is a function of that. So payloads are compared with what was sent without being kept.
//
//	producer ─► Attempt, Value ─► broker ─► Acked(offset)
//	consumer ◄─ record ◄───────── broker         │
//	    └─────► Saw(offset, value) ◄── compared ─┘       Check(end offsets): the whole story, when all is read
//
// What is found, at once by Saw, Acked and EndOffset, or at the end by Check: bytes that are not those that were sent; an
// offset that shows different records at different times or to different readers; an ack that named another record; acked
// records that are not there; offsets that were seen or acked and lie beyond the end; holes; records of one producer out
// of order; records twice although the producer is idempotent.
//
// All methods are safe for concurrent use. Memory: 16 bytes per offset and 8 per record sent.
package history
