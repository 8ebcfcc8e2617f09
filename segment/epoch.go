package segment

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"lagoon/internal/vfs"
)

const epochCacheFile = "leader-epoch-checkpoint"

// EpochEntry says that leader epoch Epoch began at offset Start.
type EpochEntry struct {
	Epoch int32
	Start Offset
}

// EpochCache is a partition's leader-epoch-checkpoint. Every change is on stable storage before it returns. Entries are
// ascending in both epoch and start offset. Safe for concurrent use.
type EpochCache struct {
	fs   vfs.FS
	name string

	mu      sync.RWMutex
	entries []EpochEntry
}

// LoadEpochCache reads the checkpoint of the partition in dir; an absent file has no entries.
// Errors: *CorruptError, then the cache may be rebuilt from the batches (they carry the epoch) by ResetEpochCache and
// Assign.
func LoadEpochCache(fsys vfs.FS, dir string) (*EpochCache, error) {
	c := ResetEpochCache(fsys, dir)
	err := readLines(fsys, c.name, func(fields []string) error {
		e, err := parseEpochEntry(fields)
		if err != nil {
			return err
		}
		if n := len(c.entries); n > 0 && (e.Epoch <= c.entries[n-1].Epoch || e.Start < c.entries[n-1].Start) {
			return fmt.Errorf("epoch %d at %d after epoch %d at %d", e.Epoch, e.Start, c.entries[n-1].Epoch, c.entries[n-1].Start)
		}
		c.entries = append(c.entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ResetEpochCache begins an empty cache, whatever the file holds; the first change replaces it.
func ResetEpochCache(fsys vfs.FS, dir string) *EpochCache {
	return &EpochCache{fs: fsys, name: inDir(dir, epochCacheFile)}
}

func parseEpochEntry(fields []string) (EpochEntry, error) {
	if len(fields) != 2 {
		return EpochEntry{}, fmt.Errorf("%d fields, want epoch and start offset", len(fields))
	}
	epoch, err := strconv.ParseInt(fields[0], 10, 32)
	if err != nil {
		return EpochEntry{}, err
	}
	start, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return EpochEntry{}, err
	}
	if epoch < 0 || start < 0 {
		return EpochEntry{}, fmt.Errorf("epoch %d, start offset %d", epoch, start)
	}
	return EpochEntry{Epoch: int32(epoch), Start: Offset(start)}, nil
}

// save writes entries and, when that succeeded, makes them current. Runs under mu.
func (c *EpochCache) save(entries []EpochEntry) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "0\n%d\n", len(entries))
	for _, e := range entries {
		fmt.Fprintf(&b, "%d %d\n", e.Epoch, e.Start)
	}
	if err := vfs.WriteFileAtomic(c.fs, c.name, b.Bytes()); err != nil {
		return fmt.Errorf("save leader epochs: %w", err)
	}
	c.entries = entries
	return nil
}

// Assign notes that epoch begins at offset start. Entries that contradict it (same or higher epoch, or start at or
// above start) go, as in Kafka. The latest epoch again changes nothing. Errors: ErrOutOfRange for negative values and
// for an epoch below the latest.
func (c *EpochCache) Assign(epoch int32, start Offset) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch < 0 || start < 0 {
		return false, fmt.Errorf("assign leader epoch %d at %d: %w", epoch, start, ErrOutOfRange)
	}
	if n := len(c.entries); n > 0 {
		latest := c.entries[n-1].Epoch
		if epoch == latest {
			return false, nil
		}
		if epoch < latest {
			return false, fmt.Errorf("assign leader epoch %d: latest is %d: %w", epoch, latest, ErrOutOfRange)
		}
	}
	kept := slices.Clone(c.entries)
	for len(kept) > 0 && kept[len(kept)-1].Start >= start {
		kept = kept[:len(kept)-1]
	}
	return true, c.save(append(kept, EpochEntry{Epoch: epoch, Start: start}))
}

// Latest is the newest entry.
func (c *EpochCache) Latest() (EpochEntry, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.entries) == 0 {
		return EpochEntry{}, false
	}
	return c.entries[len(c.entries)-1], true
}

// EndOffset answers OffsetForLeaderEpoch: the largest known epoch at or below the one asked for, and the offset where
// the next one begins; the log end for the latest. (-1, -1) for an epoch that is not known yet.
func (c *EpochCache) EndOffset(epoch int32, logEnd Offset) (int32, Offset) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := len(c.entries)
	if epoch < 0 || n == 0 || epoch > c.entries[n-1].Epoch {
		return -1, -1
	}
	if epoch == c.entries[n-1].Epoch {
		return epoch, logEnd
	}
	higher, _ := slices.BinarySearchFunc(c.entries, epoch, func(e EpochEntry, epoch int32) int {
		if e.Epoch <= epoch {
			return -1
		}
		return 1
	})
	if higher == 0 { // before the first epoch that the log still holds
		return epoch, c.entries[0].Start
	}
	return c.entries[higher-1].Epoch, c.entries[higher].Start
}

// EpochAt is the leader epoch in which the record at offset was written; -1 when unknown.
func (c *EpochCache) EpochAt(offset Offset) int32 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for i := len(c.entries) - 1; i >= 0; i-- {
		if c.entries[i].Start <= offset {
			return c.entries[i].Epoch
		}
	}
	return -1
}

// TruncateFromStart follows the log start: epochs that ended below it go, the one that holds it begins there.
func (c *EpochCache) TruncateFromStart(start Offset) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := 0
	for first+1 < len(c.entries) && c.entries[first+1].Start <= start {
		first++
	}
	if len(c.entries) == 0 || c.entries[first].Start >= start {
		return nil
	}
	kept := slices.Clone(c.entries[first:])
	kept[0].Start = start
	return c.save(kept)
}

// Entries is a copy of all entries, ascending.
func (c *EpochCache) Entries() []EpochEntry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.entries)
}
