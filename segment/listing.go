package segment

import (
	"cmp"
	"slices"
	"strings"

	"lagoon/internal/vfs"
)

// SegmentFile is one log file found in a partition directory.
type SegmentFile struct {
	Base                   Offset
	SizeBytes              int64
	HasIndex, HasTimeIndex bool
	HasTxnIndex            bool // it holds markers that aborted transactions
}

// Listing is what a partition directory holds, by kind. Names are relative to the directory.
type Listing struct {
	Segments      []SegmentFile // by base, ascending
	Snapshots     []Offset      // producer snapshots, ascending
	Leftovers     []string      // .tmp, .migrating, .deleted, .cleaned, .swap
	OrphanIndexes []string      // index files and sidecars whose log or snapshot is not here
	Strangers     []string      // names that neither Kafka nor Lagoon writes here; left alone
}

// ListDir reads the partition directory dir. It opens no file. A directory that does not exist is fs.ErrNotExist.
func ListDir(fsys vfs.FS, dir string) (Listing, error) {
	entries, err := fsys.List(dir)
	if err != nil {
		return Listing{}, err
	}
	var l Listing
	logs := map[Offset]int{}
	for _, e := range entries {
		base, suffix, ok := parseName(e.Name)
		switch {
		case isLeftover(e.Name):
			l.Leftovers = append(l.Leftovers, e.Name)
		case e.Dir && e.Name == QuarantineDir, e.Name == epochCacheFile, e.Name == partitionMetadataFile:
		case !ok || !e.Regular || !isKnownSuffix(suffix):
			l.Strangers = append(l.Strangers, e.Name)
		case suffix == logSuffix:
			logs[base] = len(l.Segments)
			l.Segments = append(l.Segments, SegmentFile{Base: base, SizeBytes: e.Size})
		case suffix == snapshotSuffix:
			l.Snapshots = append(l.Snapshots, base)
		}
	}
	for _, e := range entries { // names sort .index before .log, so this needs a second pass
		base, suffix, ok := parseName(e.Name)
		if !ok || !e.Regular || isLeftover(e.Name) {
			continue
		}
		i, hasLog := logs[base]
		orphan := false
		switch suffix {
		case indexSuffix:
			if orphan = !hasLog; hasLog {
				l.Segments[i].HasIndex = true
			}
		case timeIndexSuffix:
			if orphan = !hasLog; hasLog {
				l.Segments[i].HasTimeIndex = true
			}
		case txnIndexSuffix:
			if orphan = !hasLog; hasLog {
				l.Segments[i].HasTxnIndex = true
			}
		case indexCheckpointSuffix:
			orphan = !hasLog
		case batchesSuffix:
			orphan = !slices.Contains(l.Snapshots, base)
		}
		if orphan {
			l.OrphanIndexes = append(l.OrphanIndexes, e.Name)
		}
	}
	slices.SortFunc(l.Segments, func(a, b SegmentFile) int { return cmp.Compare(a.Base, b.Base) })
	slices.Sort(l.Snapshots)
	return l, nil
}

func isLeftover(name string) bool {
	for _, suffix := range []string{TmpSuffix, MigratingSuffix, DeletedSuffix, CleanedSuffix, SwapSuffix} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func isKnownSuffix(suffix string) bool {
	switch suffix {
	case logSuffix, indexSuffix, timeIndexSuffix, txnIndexSuffix, snapshotSuffix, batchesSuffix, indexCheckpointSuffix:
		return true
	}
	return false
}

// Files names every file that can belong to the segment at base, relative to its directory, the log first.
func Files(base Offset) []string {
	return []string{LogName(base), IndexName(base), TimeIndexName(base), TxnIndexName(base), fileName(base, indexCheckpointSuffix)}
}
