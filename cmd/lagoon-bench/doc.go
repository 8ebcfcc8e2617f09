// Command lagoon-bench measures any Kafka-compatible broker: what a backlog does to those who read and write new data, how much it
// carries, and how it takes many partitions; and it makes the laboratory to do that in.
//
//	main.go         commands, exit codes, one-line errors
//	flags.go        sizes, rates and durations with their units
//	lab*.go         laboratory: devices and brokers (internal/lab)
//	isolation.go    isolation
//	throughput.go   throughput, partitions
//	readpath.go     readpath
//	compare.go      its results side by side
//
// Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage, 3 the broker lost, repeated, reordered or damaged records.
package main
