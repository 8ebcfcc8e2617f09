package segment

import (
	"errors"
	"fmt"
	"math"
)

// Options of writing segments. The zero value means the defaults.
type Options struct {
	SegmentBytes       int32 // a segment takes no batch that would make it larger; default 1 GiB (segment.bytes)
	IndexIntervalBytes int32 // log bytes between two index entries; default 4096 (index.interval.bytes)
	IndexBytes         int32 // cap of .index and of .timeindex; default 10 MiB (segment.index.bytes)
	PreallocateBytes   int64 // step in which disk space is reserved ahead of the tail; default 16 MiB, < 0: never
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 1 << 30
	}
	if o.IndexIntervalBytes == 0 {
		o.IndexIntervalBytes = defaultIndexInterval
	}
	if o.IndexBytes == 0 {
		o.IndexBytes = 10 << 20
	}
	if o.PreallocateBytes == 0 {
		o.PreallocateBytes = 16 << 20
	}
	return o
}

// Validate names every option that makes no sense.
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	if o.SegmentBytes < BatchHeaderSize {
		errs = append(errs, fmt.Errorf("segment: SegmentBytes %d: want at least %d", o.SegmentBytes, BatchHeaderSize))
	}
	if o.IndexIntervalBytes < 0 {
		errs = append(errs, fmt.Errorf("segment: IndexIntervalBytes %d: want 0 or more", o.IndexIntervalBytes))
	}
	if o.IndexBytes < MinIndexBytes {
		errs = append(errs, fmt.Errorf("segment: IndexBytes %d: want at least %d", o.IndexBytes, MinIndexBytes))
	}
	return errors.Join(errs...)
}

// MinIndexBytes is the smallest Options.IndexBytes: one entry of time, and room for the last one.
const MinIndexBytes = 2 * timeEntrySize

// defaultIndexInterval is also what a rebuild of a sealed segment uses, whose own interval is not recorded anywhere.
const defaultIndexInterval = 4096

// maxSegmentBytes is the largest position an index entry can name: Kafka's positions are int32.
const maxSegmentBytes = math.MaxInt32
