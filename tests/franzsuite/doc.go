// Package franzsuite runs franz-go's own test suite (package kgo, of the version in go.mod) against the real binary: produce, consume,
// classic and KIP-848 groups, transactions. It is the only client that ships such a suite and reaches the newest version of every API.
//
// Lagoon runs with its default settings but for groups.initial_rebalance_delay = "0s", which the suite asks of every broker; the quick list has a
// shorter groups.consumer_heartbeat_interval, too.
//
//	go test ./tests/franzsuite                                                    # a fixed list of its tests, with few records
//	LAGOON_EXHAUSTIVE=1 go test -timeout 30m ./tests/franzsuite                   # all of it, with its own 500,000 records per test
//	LAGOON_FRANZ_RUN=TestTxnEtl LAGOON_FRANZ_BROKER=kafka go test -timeout 30m …  # one test, against Apache Kafka
//
// KGO_TEST_RECORDS=50000 makes the last two shorter.
package franzsuite
