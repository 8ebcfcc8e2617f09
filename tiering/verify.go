package tiering

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"lagoon/segment"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcStart is the first byte of a batch under its checksum: attributes and everything after (KIP-98).
const crcStart = 21

// batchCheck verifies the batches of one segment as its bytes stream by, in pieces of any size, in constant memory:
// every header, every CRC, offsets and epochs that rise, whole batches up to the last byte. batch, when set, is told of
// each verified header; its error ends the check.
type batchCheck struct {
	path    string
	base    segment.Offset
	size    int64 // of the file
	dense   bool
	epochAt func(segment.Offset) int32
	batch   func(pos int64, h segment.BatchHeader) error

	pos  int64 // of the current batch
	head [segment.BatchHeaderSize]byte
	have int // bytes of head that are there
	h    segment.BatchHeader
	left int64 // bytes of the current batch after its header that are missing
	crc  uint32

	next  segment.Offset // after the last verified batch
	epoch int32          // of the last verified batch
}

func newBatchCheck(job Job, path string) *batchCheck {
	return &batchCheck{path: path, base: job.Base, size: job.SizeBytes, dense: job.Dense, epochAt: job.EpochAt, next: job.Base, epoch: -1}
}

// write takes the next bytes of the file. Errors are *segment.CorruptError.
func (c *batchCheck) write(p []byte) error {
	for len(p) > 0 {
		if c.have < len(c.head) {
			n := copy(c.head[c.have:], p)
			c.have += n
			p = p[n:]
			if c.have < len(c.head) {
				return nil
			}
			if err := c.begin(); err != nil {
				return err
			}
		}
		n := min(int64(len(p)), c.left)
		c.crc = crc32.Update(c.crc, castagnoli, p[:n])
		c.left -= n
		p = p[n:]
		if c.left == 0 {
			if err := c.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin checks a complete header before anything in it is trusted.
func (c *batchCheck) begin() error {
	h, err := segment.DecodeHeader(c.head[:])
	if err != nil {
		return c.corrupt(err, nil, nil)
	}
	switch {
	case c.pos+h.SizeBytes() > c.size:
		return c.corrupt(errors.New("batch ends after the file"), c.size-c.pos, h.SizeBytes())
	case h.SizeBytes() < segment.BatchHeaderSize:
		return c.corrupt(errors.New("batch is smaller than its header"), segment.BatchHeaderSize, h.SizeBytes())
	case h.BaseOffset < c.next || (c.dense && h.BaseOffset != c.next):
		return c.corrupt(errors.New("base offset out of order"), c.next, h.BaseOffset)
	}
	filler := h.Count == 0 && h.LeaderEpoch < 0 // recovery puts one, without records or an epoch, where durable ones were lost
	if h.LeaderEpoch < c.epoch && !filler {
		return c.corrupt(errors.New("leader epoch falls"), c.epoch, h.LeaderEpoch)
	}
	if c.epochAt != nil && !filler {
		if want := c.epochAt(h.BaseOffset); want >= 0 && want != h.LeaderEpoch {
			return c.corrupt(errors.New("leader epoch differs from leader-epoch-checkpoint"), want, h.LeaderEpoch)
		}
	}
	c.h, c.left = h, h.SizeBytes()-segment.BatchHeaderSize
	c.crc = crc32.Update(0, castagnoli, c.head[crcStart:])
	if c.left == 0 {
		return c.end()
	}
	return nil
}

func (c *batchCheck) end() error {
	if c.have == 0 {
		return nil // begin has ended an empty batch already
	}
	if c.crc != c.h.CRC {
		return c.corrupt(errors.New("checksum of batch"), fmt.Sprintf("%08x", c.h.CRC), fmt.Sprintf("%08x", c.crc))
	}
	if c.batch != nil {
		if err := c.batch(c.pos, c.h); err != nil {
			return err
		}
	}
	c.pos += c.h.SizeBytes()
	c.next, c.epoch, c.have = c.h.NextOffset(), max(c.epoch, c.h.LeaderEpoch), 0
	return nil
}

// finish checks that the file ended with a batch, and where the partition says it ends (0 = unknown).
func (c *batchCheck) finish(next segment.Offset) error {
	if c.have != 0 || c.pos != c.size {
		return c.corrupt(errors.New("file ends inside a batch"), c.size, c.pos)
	}
	if next != 0 && (c.next > next || (c.dense && c.next != next)) {
		return c.corrupt(errors.New("offset after the last batch"), next, c.next)
	}
	return nil
}

func (c *batchCheck) corrupt(err error, want, got any) error {
	return &segment.CorruptError{Path: c.path, Pos: c.pos, Want: want, Got: got, Err: err}
}

// indexCheck verifies an .index or .timeindex against the batches it points at, reading along as they stream by. Both
// have fixed-size entries that rise; what they must say follows from what a lookup does with them:
//
//   - .index (relative offset, position): the position is the start of a batch whose base offset is not above the entry's,
//     or a lookup would start too late.
//   - .timeindex (timestamp, relative offset): the batch that holds the offset has exactly this as its largest timestamp,
//     or a lookup by time would skip records.
type indexCheck struct {
	path  string
	base  segment.Offset
	time  bool
	dense bool // every entry's offset lies in a batch
	r     *chunkReader

	entry  indexEntry
	have   bool // entry is loaded and not yet used
	number int64
}

// indexEntry is one entry of either index.
type indexEntry struct {
	offset segment.Offset
	pos    int64 // .index
	ms     int64 // .timeindex
}

func (c *indexCheck) entryBytes() int64 {
	if c.time {
		return 12
	}
	return 8
}

// load makes the next entry current; false at the end of the file.
func (c *indexCheck) load() (bool, error) {
	if c.have {
		return true, nil
	}
	switch rest := c.r.rest(); {
	case rest == 0:
		return false, nil
	case rest < c.entryBytes():
		c.number++
		return false, c.corrupt("file ends inside an entry", c.entryBytes(), rest)
	}
	raw, err := c.r.next(c.entryBytes())
	if err != nil {
		return false, err
	}
	last := c.entry
	if c.time {
		c.entry = indexEntry{ms: int64(binary.BigEndian.Uint64(raw)), offset: c.base + segment.Offset(int32(binary.BigEndian.Uint32(raw[8:])))}
	} else {
		c.entry = indexEntry{offset: c.base + segment.Offset(int32(binary.BigEndian.Uint32(raw))), pos: int64(int32(binary.BigEndian.Uint32(raw[4:])))}
	}
	c.number++
	c.have = true
	switch {
	case c.entry.offset < c.base:
		return false, c.corrupt("offset below the segment's base", c.base, c.entry.offset)
	case c.number > 1 && (c.entry.offset < last.offset || (!c.time && c.entry.offset == last.offset)):
		return false, c.corrupt("offsets do not rise", last.offset, c.entry.offset)
	case c.number > 1 && (c.entry.pos < last.pos || c.entry.ms < last.ms):
		return false, c.corrupt("entries do not rise", last, c.entry)
	}
	return true, nil
}

// batch checks the entries that concern one batch.
func (c *indexCheck) batch(pos int64, h segment.BatchHeader) error {
	for {
		ok, err := c.load()
		if err != nil || !ok {
			return err
		}
		concerns, err := c.offsetEntry(pos, h)
		if c.time {
			concerns, err = c.timeEntry(h)
		}
		if err != nil || !concerns {
			return err
		}
		c.have = false
	}
}

func (c *indexCheck) offsetEntry(pos int64, h segment.BatchHeader) (concerns bool, err error) {
	switch {
	case c.entry.pos > pos:
		return false, nil
	case c.entry.pos < pos:
		return false, c.corrupt("position inside a batch", pos, c.entry.pos)
	case c.entry.offset < h.BaseOffset:
		return false, c.corrupt("offset below that of the batch at its position", h.BaseOffset, c.entry.offset)
	}
	return true, nil
}

func (c *indexCheck) timeEntry(h segment.BatchHeader) (concerns bool, err error) {
	switch {
	case c.entry.offset > h.LastOffset():
		return false, nil
	case c.entry.offset < h.BaseOffset && !c.dense:
		return true, nil // the batch was compacted away
	case c.entry.offset < h.BaseOffset:
		return false, c.corrupt("offset in no batch", h.BaseOffset, c.entry.offset)
	case c.entry.ms != h.MaxTimestamp:
		return false, c.corrupt("timestamp differs from that of the batch", h.MaxTimestamp, c.entry.ms)
	}
	return true, nil
}

// finish checks that no entry points behind the last batch.
func (c *indexCheck) finish(next segment.Offset) error {
	ok, err := c.load()
	if err != nil {
		return err
	}
	if ok || (c.number > 0 && c.entry.offset >= next) {
		return c.corrupt("entry after the last batch", next, c.entry.offset)
	}
	return nil
}

func (c *indexCheck) corrupt(text string, want, got any) error {
	return &segment.CorruptError{Path: c.path, Pos: (c.number - 1) * c.entryBytes(), Want: want, Got: got, Err: errors.New(text)}
}

// chunkReader reads a file front to back in pieces, through read, in at most len(buf) bytes at a time.
type chunkReader struct {
	read func(p []byte, off int64) error // fills p
	buf  []byte
	data []byte // unread part of buf
	off  int64  // of the first byte not yet in buf
	size int64
}

func (r *chunkReader) rest() int64 { return int64(len(r.data)) + r.size - r.off }

// next gives the next n bytes, valid until the following call; n must divide len(buf).
func (r *chunkReader) next(n int64) ([]byte, error) {
	if r.rest() < n {
		return nil, io.ErrUnexpectedEOF
	}
	if len(r.data) == 0 {
		fill := r.buf[:min(int64(len(r.buf)), r.size-r.off)]
		if err := r.read(fill, r.off); err != nil {
			return nil, err
		}
		r.off += int64(len(fill))
		r.data = fill
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out, nil
}
