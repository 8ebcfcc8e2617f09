// Package bench measures the real binary from outside: processor time, memory and the time of a restart, each against the bound that
// docs/benchmarks.md promises. The results stand there, with the commands that made them.
//
//	go test -run '^$' -bench . ./tests/bench                    all, about three minutes
//	go test -run '^$' -bench HotFetch -count 3 ./tests/bench    one, best of three
//	go test ./tests/bench                                       only what does not depend on the machine's speed
//
// The broker is a process of its own; processor time and memory are what the kernel says of it in /proc, so the load generator is not
// in the figures. Processor seconds are more trustworthy than wall times: they hold on a machine that does other things as well.
//
// A bound that does not depend on the machine's speed is a test as well (memory of idle connections, what a restart reads), so that
// it is held by every run of the tests. A benchmark that misses its bound reports it as the metric "missed" and goes on.
//
// LAGOON_BENCH_DIR names the directory on the device to measure, default: the temporary directory.
package bench
