package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// Options of a journal; both files have the same size.
type Options struct {
	// Bytes of each of the two files: a multiple of Block, at least 2*MaxRound + Block.
	Bytes int64
	// MaxRound bounds one round with headers and padding: a multiple of Block, at most 16 MiB.
	MaxRound int
	// Cache drops the pages of what had to be written through the page cache. Nil: that is left to the kernel.
	Cache *cachectl.Cache
}

// Validate says what is wrong with o (ErrOptions).
func (o Options) Validate() error {
	switch {
	case o.MaxRound < Block || o.MaxRound > maxRoundBytes || o.MaxRound%Block != 0:
		return fmt.Errorf("%w: rounds of %d bytes; a multiple of %d up to %d is possible", ErrOptions, o.MaxRound, Block, maxRoundBytes)
	case o.Bytes%Block != 0 || o.Bytes < 2*int64(o.MaxRound)+Block:
		return fmt.Errorf("%w: files of %d bytes; a multiple of %d is possible, from %d on with rounds of %d", ErrOptions, o.Bytes, Block, 2*int64(o.MaxRound)+Block, o.MaxRound)
	}
	return nil
}

// Entry is a range of one segment file.
type Entry struct {
	Dir     string   // partition directory, e.g. "orders-3"; 1 to 255 bytes, without a slash
	TopicID [16]byte // a topic that was deleted and made anew is another one
	Base    int64    // base offset of the segment: names the file
	Pos     int64    // position of the first byte in the file
	Next    int64    // the log's next offset after this range, or a later one
	Bytes   int      // > 0
}

// Journal writes rounds. It has one owner and is not safe for concurrent use.
type Journal struct {
	opt    Options
	files  [2]vfs.File
	direct [2]bool
	newKey func() uint64
	err    error // ErrFailed and the reason, once a write failed

	buf   []byte // of one round, outside Go's heap, aligned; nil once closed
	block []byte // of a header, behind it
	free  func()
	used  int // bytes of buf that the round has so far, its header included
	n     int // its entries

	cur  int    // the file that the next round goes to
	at   int64  // where in it
	due  bool   // its header is yet to be written; then the other file is the newer one, or both are empty
	head header // written last
	seq  uint64 // of the next round
}

// Begin starts a new round. The last one was committed, or is dropped.
func (j *Journal) Begin() { j.used, j.n = roundHeaderBytes, 0 }

// Room tells how many bytes one more entry may have in this round, whatever its directory; 0 when there is none. It considers MaxRound and
// what the current file has left, which a round needs to hold it in one piece.
func (j *Journal) Room() int {
	limit := min(int64(len(j.buf)), j.Left())
	return int(max(0, limit-int64(j.used+entryHeaderBytes+maxDirBytes)))
}

// Add makes e part of the round and returns its bytes in the round's buffer, to be filled before Commit. It panics when e does not fit, or is
// no range of a file of a partition: both are for the caller to know.
func (j *Journal) Add(e Entry) []byte {
	if wrong := e.check(); wrong != "" {
		panic(fmt.Sprintf("journal: entry %+v: %s", e, wrong))
	}
	size := entrySize(e.Dir)
	if limit := min(int64(len(j.buf)), j.Left()); int64(j.used+size)+int64(e.Bytes) > limit {
		panic(fmt.Sprintf("journal: entry of %d bytes in a round of %d with room for %d", e.Bytes, j.used, limit))
	}
	e.encode(j.buf[j.used:])
	at := j.used + size
	j.used, j.n = at+e.Bytes, j.n+1
	return j.buf[at:j.used:j.used]
}

// Commit writes the round and returns when it is on stable storage; a round without entries is nothing. The next one needs Begin.
// Any error is final: ErrFailed, with the reason, from then on.
func (j *Journal) Commit() error {
	if j.err != nil || j.n == 0 {
		return j.err
	}
	if j.due {
		if err := j.beginFile(); err != nil {
			return j.fail(err)
		}
	}
	n := padded(j.used)
	roundHeader{j.head.generation, j.head.key, j.seq, j.used, j.n}.seal(j.buf)
	clear(j.buf[j.used:n])
	if err := j.write(j.cur, j.buf[:n], j.at); err != nil {
		return j.fail(err)
	}
	j.at += int64(n)
	j.seq++
	j.Begin()
	return nil
}

// Left tells how many bytes of rounds, headers and padding included, the current file still takes.
func (j *Journal) Left() int64 { return j.opt.Bytes - j.at }

// Turn makes the next round begin the other file. The Commit of that round overwrites what is there: everything in that file must be stable in
// the segment files by then. Nothing is written before: a second Turn, and one of an empty journal, does nothing. A round that was begun is dropped.
func (j *Journal) Turn() {
	j.Begin()
	if !j.due {
		j.cur, j.at, j.due = 1-j.cur, Block, true
	}
}

// Reset empties both files durably, so that nothing is replayed: for a clean stop, once everything is stable in the segment files. A round that was
// begun is dropped; the next Commit begins a file. Any error is final, as with Commit.
func (j *Journal) Reset() error {
	if j.err != nil {
		return j.err
	}
	j.Begin()
	older := 1 - j.cur
	if j.due {
		older = j.cur
	}
	for _, file := range []int{older, 1 - older} {
		if err := j.writeHeader(file, j.emptyHeader()); err != nil {
			return j.fail(err)
		}
	}
	j.emptied(older)
	return nil
}

// emptyHeader is the next header, of a file without rounds. The older file gets one first: a crash in between leaves the newer rounds, and none
// of the gaps that damage leaves.
func (j *Journal) emptyHeader() header {
	return header{generation: j.head.generation + 1, key: j.newKey()}
}

// emptied begins anew after both files got an empty header, older being the one that got it first.
func (j *Journal) emptied(older int) {
	j.cur, j.at, j.due, j.seq = older, Block, true, 1
	j.Begin()
}

// Direct reports whether rounds are written around the page cache.
func (j *Journal) Direct() bool { return j.direct[0] && j.direct[1] }

// Close gives files and memory back. It empties nothing: see Reset.
func (j *Journal) Close() error {
	if j.buf == nil {
		return nil
	}
	j.free()
	j.buf, j.block = nil, nil
	j.Begin()
	if j.err == nil {
		j.err = fmt.Errorf("%w: %w", ErrFailed, fs.ErrClosed)
	}
	return j.closeFiles()
}

func (j *Journal) closeFiles() (err error) {
	for _, f := range j.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

func (j *Journal) fail(err error) error {
	j.err = fmt.Errorf("%w: %w", ErrFailed, err)
	return j.err
}

// beginFile writes the header of the current file, durably. The first sector holds all of it, so that there is either the old one or the new one:
// what the file held before ends here, and a round that is torn afterwards has none of them behind it.
func (j *Journal) beginFile() error {
	h := header{generation: j.head.generation + 1, key: j.newKey(), first: j.seq}
	err := j.writeHeader(j.cur, h)
	j.due = err != nil
	return err
}

// writeHeader makes h the header of a file, durably.
func (j *Journal) writeHeader(file int, h header) error {
	h.encode(j.block)
	if err := j.write(file, j.block, 0); err != nil {
		return err
	}
	j.head = h
	return nil
}

// write makes p durable. In files that were written in full before no metadata change.
func (j *Journal) write(file int, p []byte, pos int64) error {
	f := j.files[file]
	if _, err := f.WriteAt(p, pos); err != nil {
		return err
	}
	if j.direct[file] {
		return nil
	}
	if err := f.SyncData(); err != nil {
		return err
	}
	j.drop(f, pos, int64(len(p)))
	return nil
}

// drop takes bytes that went through the page cache out of it: nobody reads them. Pages that stay cost memory, no more.
func (j *Journal) drop(f vfs.File, pos, n int64) {
	if j.opt.Cache != nil {
		_, _ = j.opt.Cache.Evict(f, pos, n)
	}
}

func randomKey() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
