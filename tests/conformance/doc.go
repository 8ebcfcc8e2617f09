// Package conformance holds the real binary against stock clients: franz-go, kcat (librdkafka), confluent-kafka (a newer librdkafka),
// kafka-python and Apache Kafka's own Java tools each produce, consume without groups and administer; what one of them wrote, all of
// them read, record for record, with every codec. Cases that no client sends any more are spoken raw.
//
// The second half is about files: Kafka's DumpLogSegments reads what the broker wrote, and packages segment and partition read what a
// real Kafka wrote.
//
// It is not a benchmark and not a crash test: data are small, brokers stop cleanly, but for the one that
// finds hanging transactions in its logs afterwards.
//
//	records_test.go    the data set, and how records are compared
//	clients_test.go    what the matrix asks of a client; franz-go
//	kcat_test.go       kcat as a client, and its suite
//	python_test.go     kafka-python and confluent-kafka, driven through testdata/*.py
//	java_test.go       Kafka's tools: one JVM (testdata/Tools.java) runs their main methods one after the other
//	matrix_test.go     producers × codecs × readers
//	exporters_test.go  what kafka_exporter, kminion and Burrow send, and lag as they compute it
//	apps_test.go       Kafka Streams (LAGOON_EXHAUSTIVE=1: with both guarantees) and Kafka Connect
//	tools_test.go      Kafka's tools against topics, configurations, groups and features
//	groups_test.go, consumer_protocol_test.go   groups of both protocols
//	franz_test.go, raw_test.go   a suite of one client, and of none
//	transactions_test.go  kafka-transactions and hanging transactions; librdkafka's transactions
//	files_test.go      DumpLogSegments over our files
//	kafkalog_test.go   a log directory that Kafka wrote
package conformance
