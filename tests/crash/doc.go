// Package crash takes the broker's promises about lost, doubled and changed records at their word: the real binary on real
// file systems, under load from franz-go, is killed, its disks are cut off, filled, or made to fail, and an oracle
// (package history) compares everything that was sent, acknowledged and read.
//
//	TestKill           kill -9 under load, migrations on, without and with a commit journal; the same clients go on across all cycles
//	TestKillGroups     kill -9 under commits; groups of both protocols go on, and their offsets never move back
//	TestMigrateUnderLoad  readers at the tail, far behind and at random offsets cross segments that move; no fetch error
//	TestKillMigration  kill -9 at each step of a migration; one copy of every segment afterwards
//	TestKillPin        kill -9 while a partition that was pinned to a tier moves there; the next start completes the move
//	TestKillTransactions  a pipeline from topic to topic in transactions; each input exactly once
//	TestKillFirstTransaction  kill -9 while the topic of transactions comes into being
//	TestCompactionUnderKills  plain, idempotent and transactional writers of keys, kill -9 while their topics are compacted and move; the view of the
//	                   keys is exact after each kill, and DumpLogSegments reads what is left
//	TestPowerCut       FS_IOC_SHUTDOWN on ext4 and xfs, tiers on two file systems that stop at different moments, without and with a commit journal
//	TestSyncIsNotBelieved  the same under files that are written and synced, whole or in ranges, or written around the cache: what is called durable is there
//	TestSyncFailure    thin storage runs full below the file system: sync fails, the directory is fenced
//	TestDiskFull, TestReadOnly
//	TestFrozenDirectory  a file system that answers no write: topics, a stop and a start beside it
//
// It is not a benchmark, and not the place of exhaustive crash points: those are in internal/partition's and
// tiering's tests on a simulated file system. Loss that only a lying disk shows is not found here.
//
// Environment: LAGOON_CYCLES=50 runs that many cycles of TestKill, TestKillPin, TestKillGroups, TestKillTransactions, TestCompactionUnderKills and
// TestPowerCut, and kills 20 times at every step in TestKillMigration; LAGOON_SEED repeats a run's random choices (what the machine does in between
// differs).
package crash
