// Package differential drives the real binary and Apache Kafka 4.3.1, one node each and set up alike, with the same requests, and
// compares the responses field by field.
//
// A sequence (sequences_*_test.go) is a few requests about one API, errors included, run in the lowest and in the highest version that both
// brokers serve (LAGOON_EXHAUSTIVE=1: in all of them). Each sequence has topics and groups of its own, named alike on both sides. What it was
// answered is flattened to path = value (compare_test.go): lists are ordered by what identifies their elements, and what cannot be equal
// (topic ids, member ids, ports, the time, texts of errors) is replaced by a word. What differs then must be in the list of
// differences_test.go with a reason, and every entry of that list must be met: docs/compatibility.md is printed from it
// (go test ./tests/differential -run Documented -update).
//
// A key that Lagoon serves and that has no sequence fails the test.
//
//	pair_test.go         the two brokers, connections, one sequence under way
//	compare_test.go      responses as paths and values, and what differs
//	differences_test.go  the differences that there may be
//	document_test.go     docs/compatibility.md is what the broker and this test say
//	build_test.go        requests in few words
//	sequences_*_test.go  the sequences, by area
package differential
