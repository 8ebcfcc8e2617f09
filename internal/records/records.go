package records

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lagoon/segment"
)

// MaxBytes is how much one batch may unpack to.
const MaxBytes = 64 << 20

// Errors of Each, wrapped with the batch's base offset.
var (
	// ErrTooLarge: the batch unpacks to more than MaxBytes.
	ErrTooLarge = errors.New("records: batch unpacks to more than 64 MiB")
	// ErrMalformed: the records are not what the header says, or not records at all.
	ErrMalformed = errors.New("records: malformed")
)

// Record is one record's place and key. Key, Value and Raw are valid until the callback returns; nil means null.
type Record struct {
	Offset      segment.Offset
	TimestampMs int64
	Key, Value  []byte
	Raw         []byte // all of it, as it lies in the batch, without the length before it
}

// Each calls fn for every record of the batch in order until fn returns false. batch is the whole batch, header included,
// whose CRC the caller has checked; it is not kept. Memory is bounded by the largest record, at most MaxBytes.
func Each(h segment.BatchHeader, batch []byte, fn func(Record) bool) error {
	if int64(len(batch)) != h.SizeBytes() || len(batch) < segment.BatchHeaderSize {
		return fmt.Errorf("batch %d: %w: %d bytes, header says %d", h.BaseOffset, ErrMalformed, len(batch), h.SizeBytes())
	}
	if h.Compression() == segment.CompressionNone {
		if err := eachPlain(h, batch[segment.BatchHeaderSize:], fn); err != nil {
			return fmt.Errorf("batch %d: %w", h.BaseOffset, err)
		}
		return nil
	}
	r, done, err := unpack(h.Compression(), batch[segment.BatchHeaderSize:])
	if err != nil {
		return fmt.Errorf("batch %d: %w", h.BaseOffset, err)
	}
	defer done()
	limited := &limitReader{r: r, left: MaxBytes}
	if err := each(h, bufio.NewReader(limited), fn); err != nil {
		if limited.hit {
			err = ErrTooLarge
		}
		return fmt.Errorf("batch %d: %w", h.BaseOffset, err)
	}
	return nil
}

// eachPlain is each over records that need no unpacking, where they lie.
func eachPlain(h segment.BatchHeader, b []byte, fn func(Record) bool) error {
	for i := range h.Count {
		n, used := binary.Varint(b)
		if used <= 0 || n < 0 || n > int64(len(b)-used) {
			return fmt.Errorf("%w: record %d of %d bytes, %d are there", ErrMalformed, i, n, len(b)-max(used, 0))
		}
		rec, err := parse(h, b[used:used+int(n):used+int(n)])
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if !fn(rec) {
			return nil
		}
		b = b[used+int(n):]
	}
	return nil
}

func each(h segment.BatchHeader, r *bufio.Reader, fn func(Record) bool) error {
	var body []byte
	for i := range h.Count {
		n, err := binary.ReadVarint(r)
		if err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrMalformed, i, err)
		}
		if n < 0 || n > MaxBytes {
			return fmt.Errorf("%w: record %d of %d bytes", ErrMalformed, i, n)
		}
		if body, err = readExactly(r, body, int(n)); err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrMalformed, i, err)
		}
		rec, err := parse(h, body)
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if !fn(rec) {
			return nil
		}
	}
	return nil
}

// readExactly fills buf with n bytes, growing it as bytes arrive and not by what the length claims.
func readExactly(r io.Reader, buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), 64<<10)
		at := len(buf)
		buf = append(buf, make([]byte, step)...)
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func parse(h segment.BatchHeader, body []byte) (Record, error) {
	p := parser{b: body}
	p.take(1) // attributes: unused
	timestampDelta, offsetDelta := p.varint(), p.varint()
	rec := Record{Offset: h.BaseOffset + segment.Offset(offsetDelta), TimestampMs: h.BaseTimestamp + timestampDelta, Key: p.bytes(), Value: p.bytes(), Raw: body}
	if h.LogAppendTime() {
		rec.TimestampMs = h.MaxTimestamp
	}
	if p.bad || offsetDelta < 0 || offsetDelta > int64(h.LastOffsetDelta) {
		return Record{}, ErrMalformed
	}
	return rec, nil
}

// parser reads fields and remembers whether one did not fit.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n int64) []byte {
	if p.bad || n < 0 || n > int64(len(p.b)) {
		p.bad = true
		return nil
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) bytes() []byte {
	n := p.varint()
	if n == -1 || p.bad {
		return nil
	}
	return p.take(n)
}

// limitReader fails, and remembers it, when more than left bytes are asked for: io.LimitReader would look like an end.
type limitReader struct {
	r    io.Reader
	left int64
	hit  bool
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		l.hit = true
		return 0, ErrTooLarge
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
