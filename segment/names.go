package segment

import (
	"fmt"
	"strconv"
	"strings"
)

// Suffixes of names in a partition directory that are not (or no longer) part of it.
const (
	DeletedSuffix   = ".deleted"   // the first step of a two-step delete
	TmpSuffix       = ".tmp"       // being written; a crash left it
	MigratingSuffix = ".migrating" // target of a migration before its rename
	CleanedSuffix   = ".cleaned"   // being written by compaction; a crash left it
	SwapSuffix      = ".swap"      // complete, and about to take the place of the segments whose offsets it covers
)

// QuarantineDir is where damaged files and cut bytes are kept, inside the partition directory.
const QuarantineDir = "quarantine"

const (
	logSuffix             = ".log"
	indexSuffix           = ".index"
	timeIndexSuffix       = ".timeindex"
	txnIndexSuffix        = ".txnindex"
	snapshotSuffix        = ".snapshot"
	batchesSuffix         = ".lagoon-batches"
	indexCheckpointSuffix = ".lagoon-index"
)

// LogName is the name of the log file of the segment at base.
func LogName(base Offset) string { return fileName(base, logSuffix) }

// IndexName is the name of the offset index of the segment at base.
func IndexName(base Offset) string { return fileName(base, indexSuffix) }

// TimeIndexName is the name of the time index of the segment at base.
func TimeIndexName(base Offset) string { return fileName(base, timeIndexSuffix) }

// TxnIndexName is the name of the list of aborted transactions of the segment at base.
func TxnIndexName(base Offset) string { return fileName(base, txnIndexSuffix) }

// SnapshotName is the name of the producer snapshot that covers everything below offset at.
func SnapshotName(at Offset) string { return fileName(at, snapshotSuffix) }

// BatchesName is the name of the sidecar of that snapshot.
func BatchesName(at Offset) string { return fileName(at, batchesSuffix) }

func fileName(offset Offset, suffix string) string { return fmt.Sprintf("%020d%s", offset, suffix) }

func inDir(dir, name string) string { return dir + "/" + name }

// parseName splits "<20 digits><suffix>".
func parseName(name string) (offset Offset, suffix string, ok bool) {
	const digits = 20
	if len(name) < digits {
		return 0, "", false
	}
	n, err := strconv.ParseUint(name[:digits], 10, 63)
	if err != nil {
		return 0, "", false
	}
	return Offset(n), name[digits:], true
}

// PartitionDir is the directory of a partition, relative to its tier: Kafka's <topic>-<partition>.
func PartitionDir(topic string, partition int32) string {
	return topic + "-" + strconv.FormatInt(int64(partition), 10)
}

// ParsePartitionDir is the inverse of PartitionDir; ok is false for any other name.
func ParsePartitionDir(name string) (topic string, partition int32, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || i == len(name)-1 || name[i+1] == '+' {
		return "", 0, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil || n < 0 || (name[i+1] == '0' && len(name) > i+2) {
		return "", 0, false
	}
	return name[:i], int32(n), true
}
