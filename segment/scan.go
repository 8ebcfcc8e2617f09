package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"

	"lagoon/internal/vfs"
)

const (
	directAlign = 4096
	// scanBytes is the window of the package's own scans: large enough for streaming, small enough to have several.
	scanBytes = 1 << 20
)

// ScanBuffer gives memory for Scan that also suits O_DIRECT: at least n bytes, a multiple of 4096, aligned to 4096.
func ScanBuffer(n int) []byte {
	n = max(2*directAlign, (n+directAlign-1)&^(directAlign-1))
	b := make([]byte, n+directAlign)
	shift := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (directAlign - 1))
	return b[shift : shift+n : shift+n]
}

// Scan reads the batches of f in [pos, end) in order, checks header, checksum and ascending offsets of each, and calls
// fn. pos is a batch boundary. full is the whole batch, valid during the call only. An error of fn ends the scan and is
// returned as it is.
//
// buf comes from ScanBuffer and bounds the memory, except that a batch larger than buf is read whole once its checksum
// proved its length. Reads are aligned, so f may be a Direct descriptor; f may end before end.
// Errors: *CorruptError with the position of the first bad batch, also when the last one is cut off; f's read errors.
func Scan(f vfs.File, pos, end int64, buf []byte, fn func(pos int64, h BatchHeader, full []byte) error) error {
	s := scanner{f: f, buf: buf, end: end}
	next := Offset(0)
	for pos < end {
		h, full, err := s.batch(pos, next, true)
		if err != nil {
			return err
		}
		if err := fn(pos, h, full); err != nil {
			return err
		}
		pos += h.SizeBytes()
		next = h.NextOffset()
	}
	return nil
}

// scanner reads a file forward through one aligned window.
type scanner struct {
	f   vfs.File
	buf []byte
	end int64 // nothing is read as part of a batch from here on
	// limit is the first offset that cannot be in this file, 0 for no limit.
	limit Offset
	off   int64 // file position of buf[0], aligned
	n     int   // valid bytes in buf
	read  int64 // bytes read from f so far
}

func (s *scanner) corrupt(pos int64, err error) error {
	return &CorruptError{Path: s.f.Name(), Pos: pos, Err: err}
}

// view gives up to n bytes at pos, fewer at the end of the file; n is at most len(buf) - directAlign.
func (s *scanner) view(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.end-pos))
	if pos < s.off || pos+int64(n) > s.off+int64(s.n) {
		if err := s.fill(pos); err != nil {
			return nil, err
		}
	}
	from := int(pos - s.off)
	if from >= s.n {
		return nil, nil
	}
	return s.buf[from:min(from+n, s.n)], nil
}

// fill moves the window so that it begins at the block of pos, keeping what it already holds.
func (s *scanner) fill(pos int64) error {
	aligned := pos &^ (directAlign - 1)
	keep := 0
	if aligned >= s.off && aligned < s.off+int64(s.n) && s.n%directAlign == 0 {
		keep = copy(s.buf, s.buf[aligned-s.off:s.n])
	}
	s.off, s.n = aligned, keep
	n, err := readFull(s.f, s.buf[keep:], aligned+int64(keep))
	s.n += n
	s.read += int64(n)
	return err
}

// batch checks the batch at pos: structure, bounds, base offset >= next, checksum. full is nil unless wanted.
func (s *scanner) batch(pos int64, next Offset, wanted bool) (h BatchHeader, full []byte, err error) {
	if h, err = s.header(pos, next); err != nil {
		return h, nil, err
	}
	size := h.SizeBytes()
	if size <= int64(len(s.buf)-directAlign) {
		full, err = s.view(pos, int(size))
		if err != nil {
			return h, nil, err
		}
		if int64(len(full)) < size {
			return h, nil, s.corrupt(pos, fmt.Errorf("%w: file ends inside the batch", ErrCorruptBatch))
		}
		return h, full, s.checksum(pos, h, batchCRC(full))
	}
	crc, err := s.streamCRC(pos, size)
	if err != nil {
		return h, nil, err
	}
	if err := s.checksum(pos, h, crc); err != nil || !wanted {
		return h, nil, err
	}
	full = ScanBuffer(int(size) + directAlign)
	large := scanner{f: s.f, buf: full, end: s.end}
	full, err = large.view(pos, int(size))
	return h, full, err
}

func (s *scanner) header(pos int64, next Offset) (BatchHeader, error) {
	b, err := s.view(pos, BatchHeaderSize)
	if err != nil {
		return BatchHeader{}, err
	}
	h, err := DecodeHeader(b)
	switch {
	case err != nil:
	case h.BaseOffset < next:
		err = fmt.Errorf("%w: base offset %d, expected at least %d", ErrCorruptBatch, h.BaseOffset, next)
	case s.limit > 0 && h.LastOffset() >= s.limit:
		err = fmt.Errorf("%w: last offset %d, the segment ends before %d", ErrCorruptBatch, h.LastOffset(), s.limit)
	case h.SizeBytes() > s.end-pos:
		err = fmt.Errorf("%w: %d bytes, only %d are there", ErrCorruptBatch, h.SizeBytes(), s.end-pos)
	}
	if err != nil {
		return h, s.corrupt(pos, err)
	}
	return h, nil
}

func (s *scanner) checksum(pos int64, h BatchHeader, crc uint32) error {
	if crc == h.CRC {
		return nil
	}
	return &CorruptError{Path: s.f.Name(), Pos: pos, End: pos + h.SizeBytes(), First: h.BaseOffset, Next: h.NextOffset(),
		Want: fmt.Sprintf("checksum %08x", h.CRC), Got: fmt.Sprintf("%08x", crc), Err: ErrCorruptBatch}
}

// streamCRC computes the checksum of a batch that is larger than the window.
func (s *scanner) streamCRC(pos, size int64) (crc uint32, err error) {
	for at, end := pos+atAttributes, pos+size; at < end; {
		b, err := s.view(at, int(min(end-at, int64(len(s.buf)-directAlign))))
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			return 0, s.corrupt(pos, fmt.Errorf("%w: file ends inside the batch", ErrCorruptBatch))
		}
		crc = crc32.Update(crc, castagnoli, b)
		at += int64(len(b))
	}
	return crc, nil
}

// resyncBudget bounds the checksummed bytes of one search, so that bytes made to look like headers (records may hold
// anything) cannot make it quadratic. What lies behind the budget counts as damaged; nothing is ever cut because of it.
const resyncBudget = 256 << 20

// resync finds the first valid batch behind the damage at pos: first where the damaged batch itself says it ends, then
// byte by byte. Offsets of the batch must lie in [next, s.limit).
// ok is false when there is none before s.end (or within the budget).
func (s *scanner) resync(pos int64, next Offset) (found int64, h BatchHeader, ok bool, err error) {
	if h, err := s.header(pos, next); err == nil {
		if at := pos + h.SizeBytes(); at < s.end {
			if following, _, err := s.batch(at, h.NextOffset(), false); err == nil {
				return at, following, true, nil
			}
		}
	}
	budget := int64(resyncBudget)
	for at := pos + 1; at <= s.end-BatchHeaderSize && budget > 0; at++ {
		b, err := s.view(at, BatchHeaderSize)
		if err != nil {
			return 0, h, false, err
		}
		if len(b) < BatchHeaderSize {
			break
		}
		if b[atMagic] != magicV2 || !s.plausible(b, next, s.end-at) {
			continue
		}
		h, _, err := s.batch(at, next, false)
		if err == nil {
			return at, h, true, nil
		}
		if !isCorrupt(err) {
			return 0, h, false, err
		}
		budget -= max(h.SizeBytes(), BatchHeaderSize)
	}
	return 0, h, false, nil
}

// plausible is the cheap test before a checksum is computed.
func (s *scanner) plausible(b []byte, next Offset, room int64) bool {
	base := Offset(binary.BigEndian.Uint64(b[atBaseOffset:]))
	length := int64(int32(binary.BigEndian.Uint32(b[atLength:])))
	delta := int32(binary.BigEndian.Uint32(b[atLastOffsetDelta:]))
	return base >= next && base <= math.MaxInt64-math.MaxInt32-1 && delta >= 0 && (s.limit == 0 || base+Offset(delta) < s.limit) &&
		length >= minLength && length+lengthOverhead <= room
}
