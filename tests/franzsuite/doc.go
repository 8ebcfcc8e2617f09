// Package franzsuite runs franz-go's own test suite (package kgo, of the version in go.mod) against the real binary: produce, consume,
// classic and KIP-848 groups, transactions. It is the only client that ships such a suite and reaches the newest version of every API.
//
// Lagoon runs with its default settings but for groups.initial_rebalance_delay = "0s", which the suite asks of every broker.
//
//	LAGOON_EXHAUSTIVE=1 go test -timeout 30m ./tests/franzsuite                            # all of it
//	LAGOON_EXHAUSTIVE=1 LAGOON_FRANZ_RUN=TestTxnEtl LAGOON_FRANZ_BROKER=kafka go test ...  # one test, against Apache Kafka
//
// KGO_TEST_RECORDS=50000 makes it shorter than the suite's own 500,000 records per test.
package franzsuite
