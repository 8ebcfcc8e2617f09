package tiering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// Tier is one open tier.
type Tier struct {
	Name string
	FS   vfs.FS
	// Device tells which tiers share a device: migrations into one device run one after the other. "" = Name.
	Device string
}

// Job is one sealed, synced segment on its way to another tier.
type Job struct {
	Dir       string // partition directory, the same in every tier: "orders-3"
	Base      segment.Offset
	SizeBytes int64          // of the .log, as the partition knows it
	Next      segment.Offset // offset after the segment's last record, 0 = unknown
	From, To  Tier
	// Dense: offsets of the batches follow one another without gaps (no compaction ran), so that a changed base offset,
	// which the batch's checksum does not cover, is found.
	Dense bool
	// EpochAt gives the leader epoch that the batch starting at an offset must carry (the partition's epoch cache): the
	// epoch is not under the batch's checksum either. nil: epochs only must not fall within the segment.
	EpochAt func(segment.Offset) int32
}

// Validate checks what a caller could have got wrong.
func (j Job) Validate() error {
	var errs []error
	if j.Dir == "" || j.Dir == "." || strings.Contains(j.Dir, "/") {
		errs = append(errs, fmt.Errorf("dir %q: want one directory name", j.Dir))
	}
	if j.Base < 0 || j.SizeBytes < 0 || j.Next < 0 {
		errs = append(errs, fmt.Errorf("base %d, size %d, next %d: want none below 0", j.Base, j.SizeBytes, j.Next))
	}
	if j.From.FS == nil || j.To.FS == nil || j.From.Name == j.To.Name {
		errs = append(errs, fmt.Errorf("tiers %q to %q: want two different open tiers", j.From.Name, j.To.Name))
	}
	return errors.Join(errs...)
}

// Env is what a migration borrows from the rest of the broker. Only Publish and Retire are required.
type Env struct {
	// Open opens a sealed file, or a migration's own synced copy, for reads that leave nothing in the page cache.
	// nil: plain buffered reads. The Reader is used by one goroutine and closed by Migrate.
	Open func(fs vfs.FS, name string) (Reader, error)
	// Gate paces every read and write. nil: full speed.
	Gate Gate
	// WriteBack starts writing out a range of the target, Drop takes a synced range of it out of the page cache. Both are
	// hints whose failure costs memory, never bytes. nil: nothing.
	WriteBack func(f vfs.File, pos, n int64)
	Drop      func(f vfs.File, pos, n int64)
	// Progress is told after each chunk. nil: nobody.
	Progress func(Progress)
	// At is told the name of the tier, From's or To's, that is touched next: it is the one that does not answer when nothing more is heard. "" at the
	// end. nil: nobody.
	At func(tier string)
	// Publish makes readers use the new copy from now on: it either swaps the partition's view and returns nil, or leaves
	// the view as it was and returns an error, and the new copy is removed. It must answer ErrGone when the old copy is no
	// longer in the view (retention, deletion) or the partition is closing.
	Publish func(ctx context.Context, job Job) error
	// Retire hands over the removal of the old copy: the partition calls remove once, from any goroutine, when the last
	// reader of the old copy has let go. Not calling it (a stop comes first) is safe: Sweep does it at the next start.
	Retire func(job Job, remove func() error)
}

func (e Env) withDefaults() Env {
	if e.Open == nil {
		e.Open = func(fs vfs.FS, name string) (Reader, error) { return fs.Open(name, vfs.ReadOnly) }
	}
	if e.Gate == nil {
		e.Gate = noGate{}
	}
	if e.WriteBack == nil {
		e.WriteBack = func(vfs.File, int64, int64) {}
	}
	if e.Drop == nil {
		e.Drop = func(vfs.File, int64, int64) {}
	}
	if e.Progress == nil {
		e.Progress = func(Progress) {}
	}
	if e.At == nil {
		e.At = func(string) {}
	}
	return e
}

// Reader reads one immutable file. ReadAt is as in io.ReaderAt: n < len(p) only with an error.
// Offsets are multiples of 4096, p lies in memory aligned to 4096, and its length is at most ChunkBytes and a multiple of
// 4096 unless it ends with the file: fit for O_DIRECT. p is not kept.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Gate paces migrations so that foreground work goes first: it is asked before each transfer of at most ChunkBytes.
type Gate interface {
	// Step is how large the next transfers should be at most: a multiple of 4096, from 4096 to ChunkBytes. It is asked for each
	// chunk, so that a device that has become slow is given less at a time.
	Step() int64
	// Wait returns when the transfer may start, or with ctx's error. done is called when it ended, whatever came of it.
	Wait(ctx context.Context, t Transfer) (done func(), err error)
}

// Transfer is one piece of I/O that a migration wants to do.
type Transfer struct {
	Tier  string
	Write bool
	Name  string // file, for position-ordered devices
	Pos   int64
	Bytes int64
}

type noGate struct{}

func (noGate) Step() int64 { return ChunkBytes }

func (noGate) Wait(ctx context.Context, _ Transfer) (func(), error) { return func() {}, ctx.Err() }

// Progress is how far a migration is. Each byte counts twice: once copied, once read back.
type Progress struct {
	Step       Step
	DoneBytes  int64
	TotalBytes int64
}

// ChunkBytes is the largest single transfer of a migration: small enough that foreground work waits for milliseconds
// even on a hard disk (1 MiB at 100 MB/s is 10 ms), large enough that bypass reads are effective (see cachectl).
const ChunkBytes = 1 << 20
