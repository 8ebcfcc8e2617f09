package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
)

// Block is the unit of the files: rounds begin and end at multiples of it.
const Block = 4096

// The names of the two files, in the root of the log directory, and of one that is being made.
var fileNames = [2]string{"commit-journal.0", "commit-journal.1"}

const tmpSuffix = ".tmp"

// The format, big-endian (docs/formats/commit-journal.md). The last byte of a magic number is the version.
const (
	version    = '1'
	headerMark = 0x4c474a00 | version // "LGJ1"
	roundMark  = 0x4c475200 | version // "LGR1"

	headerBytes      = 32
	roundHeaderBytes = 40
	entryHeaderBytes = 45
	maxDirBytes      = 255
	// maxRoundBytes bounds what a damaged length can make Replay read.
	maxRoundBytes = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what a file begins with; it lies in the first sector, which is written as one.
type header struct {
	generation uint64
	key        uint64 // in every round of this generation
	first      uint64 // sequence number of the first round; 0: the file is empty, and so is the other one or it holds the newer rounds
}

// encode fills a whole block.
func (h header) encode(b []byte) {
	clear(b[:Block])
	binary.BigEndian.PutUint32(b[0:], headerMark)
	binary.BigEndian.PutUint64(b[8:], h.generation)
	binary.BigEndian.PutUint64(b[16:], h.key)
	binary.BigEndian.PutUint64(b[24:], h.first)
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:headerBytes], castagnoli))
}

// decodeHeader reads the header of a file. ErrVersion for one of another version.
func decodeHeader(b []byte) (h header, ok bool, err error) {
	if len(b) < headerBytes {
		return header{}, false, nil
	}
	mark := binary.BigEndian.Uint32(b)
	if mark != headerMark {
		if mark&^0xff == headerMark&^0xff {
			return header{}, false, fmt.Errorf("%w %q, this is %q", ErrVersion, rune(mark&0xff), version)
		}
		return header{}, false, nil
	}
	if binary.BigEndian.Uint32(b[4:]) != crc32.Checksum(b[8:headerBytes], castagnoli) {
		return header{}, false, nil
	}
	return header{
		generation: binary.BigEndian.Uint64(b[8:]),
		key:        binary.BigEndian.Uint64(b[16:]),
		first:      binary.BigEndian.Uint64(b[24:]),
	}, true, nil
}

// roundHeader is what a round begins with.
type roundHeader struct {
	generation, key, sequence uint64
	length                    int // of the round with its headers, without padding
	entries                   int
}

// seal writes the header of a round, of which b is all but the padding.
func (h roundHeader) seal(b []byte) {
	binary.BigEndian.PutUint32(b[0:], roundMark)
	binary.BigEndian.PutUint64(b[8:], h.generation)
	binary.BigEndian.PutUint64(b[16:], h.key)
	binary.BigEndian.PutUint64(b[24:], h.sequence)
	binary.BigEndian.PutUint32(b[32:], uint32(h.length))
	binary.BigEndian.PutUint32(b[36:], uint32(h.entries))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:h.length], castagnoli))
}

// decodeRoundHeader reads what may be the header of a round; only roundHolds tells whether it is one.
func decodeRoundHeader(b []byte) (h roundHeader, ok bool) {
	if len(b) < roundHeaderBytes || binary.BigEndian.Uint32(b) != roundMark {
		return roundHeader{}, false
	}
	length, entries := binary.BigEndian.Uint32(b[32:]), binary.BigEndian.Uint32(b[36:])
	if length > maxRoundBytes || entries == 0 || length < roundHeaderBytes || (length-roundHeaderBytes)/(entryHeaderBytes+2) < entries {
		return roundHeader{}, false
	}
	return roundHeader{
		generation: binary.BigEndian.Uint64(b[8:]),
		key:        binary.BigEndian.Uint64(b[16:]),
		sequence:   binary.BigEndian.Uint64(b[24:]),
		length:     int(length),
		entries:    int(entries),
	}, true
}

// roundHolds checks a whole round: checksum, and that its entries fill it. An entry that Add would refuse makes it no round.
func roundHolds(h roundHeader, b []byte) bool {
	if binary.BigEndian.Uint32(b[4:]) != crc32.Checksum(b[8:h.length], castagnoli) {
		return false
	}
	rest := b[roundHeaderBytes:h.length]
	for range h.entries {
		e, size, ok := decodeEntry(rest)
		if !ok || e.Bytes > len(rest)-size {
			return false
		}
		rest = rest[size+e.Bytes:]
	}
	return len(rest) == 0
}

// entrySize is what an entry's header takes.
func entrySize(dir string) int { return entryHeaderBytes + len(dir) }

func (e Entry) encode(b []byte) {
	copy(b, e.TopicID[:])
	binary.BigEndian.PutUint64(b[16:], uint64(e.Base))
	binary.BigEndian.PutUint64(b[24:], uint64(e.Pos))
	binary.BigEndian.PutUint64(b[32:], uint64(e.Next))
	binary.BigEndian.PutUint32(b[40:], uint32(e.Bytes))
	b[44] = byte(len(e.Dir))
	copy(b[entryHeaderBytes:], e.Dir)
}

// decodeEntry reads the header of an entry, of size bytes.
func decodeEntry(b []byte) (e Entry, size int, ok bool) {
	if len(b) < entryHeaderBytes {
		return Entry{}, 0, false
	}
	size = entryHeaderBytes + int(b[44])
	n := binary.BigEndian.Uint32(b[40:])
	if len(b) < size || n > maxRoundBytes {
		return Entry{}, 0, false
	}
	e = Entry{
		Dir:     string(b[entryHeaderBytes:size]),
		TopicID: [16]byte(b),
		Base:    int64(binary.BigEndian.Uint64(b[16:])),
		Pos:     int64(binary.BigEndian.Uint64(b[24:])),
		Next:    int64(binary.BigEndian.Uint64(b[32:])),
		Bytes:   int(n),
	}
	return e, size, e.check() == ""
}

// check says what is wrong with an entry, or nothing.
func (e Entry) check() string {
	switch {
	case e.Dir == "" || len(e.Dir) > maxDirBytes || e.Dir == "." || e.Dir == ".." || strings.ContainsAny(e.Dir, "/\x00"):
		return "Dir is no name of a directory"
	case e.Base < 0 || e.Next < e.Base:
		return "Base below 0, or Next below Base"
	case e.Pos < 0 || e.Bytes <= 0 || e.Pos > math.MaxInt64-int64(e.Bytes):
		return "no range of a file"
	}
	return ""
}

// padded rounds up to whole blocks.
func padded(n int) int { return (n + Block - 1) &^ (Block - 1) }
