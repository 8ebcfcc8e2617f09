// Package lagoontest runs the real binary for black-box tests: it builds cmd/lagoon when that is not up to date, starts it with its own
// ports and directories, waits until it is ready, and ends it with the test, whatever became of the test.
//
//	b := lagoontest.Start(t, lagoontest.Options{Set: []string{"storage.segment_bytes=1MiB"}})
//	cl := lagoontest.Client(t, b, kgo.ConsumeTopics("a"))
//	b.Kill()    // SIGKILL, waits for the end
//	b.Restart() // same ports, same directories
//	b.Stop()    // SIGTERM, must end with status 0 within StopTime
//	k := lagoontest.StartKafka(t) // Apache Kafka itself, to compare with
//
// It is not a fake and knows nothing of the broker's packages: what it tells, it learned over the wire, from the admin API or from
// the log.
//
// A Broker belongs to the test that started it and is not safe for concurrent Kill, Stop and Restart; everything else may be called from
// any goroutine. When the test fails the end of the broker's log is printed. A panic or a data race in the broker's log fails the test.
//
// Ports are taken from below the range that the kernel gives to outgoing connections, so that they stay free between Kill and Restart:
// a client that redials a dead port inside that range can end up connected to itself and hold the port.
//
// The program lies in LAGOON_CACHE/bin (lab.CacheDir), where the next test binary finds it up to date.
//
// Environment: LAGOON_BINARY names a ready binary; LAGOON_TEST_RACE=1 builds with -race; LAGOON_REQUIRE_ALL=1 turns Require's skips into
// failures; LAGOON_KAFKA_LIBS and LAGOON_PYTHON_VENV say where .ci/install put Kafka's jars and the Python clients.
package lagoontest
