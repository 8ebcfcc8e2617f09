// Package isolation shows, with the real binary on a real file system under memory pressure, what Lagoon is for: a reader of
// old data leaves the page cache to those who read new data, and still gets what the disk can give.
//
//	TestIsolation    live and slow topics beside a backlog reader in 1 GiB of memory: residency, disk reads, the backlog's speed. With
//	                 read_mode = "buffered" and hot windows off the backlog's pages must stay and hot windows fail to hold their
//	                 bounds, or the test shows nothing. With LAGOON_EXHAUSTIVE=1 also read_mode = "buffered" alone: the backlog's
//	                 pages stay, but pinned hot windows stand
//	TestMixedFetch   one fetch of a hot and a cold partition, the cold one on a disk of 5 MB/s: the hot one does not wait
//
// The clients are raw connections (internal/rawkafka), because they share two cores with the broker. What is shown is seen from
// outside: cachestat on the broker's files, the device's counters, /proc/PID/io; the broker's own metrics must say the same.
//
// A control file outside the broker's group, written beside it and read by nobody, shows what the machine takes from pages that nothing
// pins (some page out by age without any pressure, lab.ProactiveReclaim): on such a machine down to 79 % of its newest 10 s stayed, of the
// pinned windows beside it 99.98 %. The bound of the hot window is the same everywhere; where it is missed and the control file has lost
// as much, the machine gets two more tries. Of the bytes that real-time readers
// take from the disk it is 0, and 0.1 % where pages can be taken in the moment between the sync that cleans them and the pin.
//
// Both tests need root, loop devices and control groups; package lab builds them and takes them away. They exclude other labs
// on the machine. Their bounds are shares and ratios within one run, not times.
//
// LAGOON_ISOLATION_BACKLOG_MIB sets the size of the backlog, such as 512 for a quick look; the promise is 4096, the default.
package isolation
