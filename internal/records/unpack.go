package records

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"lagoon/segment"
)

var zstdReaders = sync.Pool{New: func() any {
	// One goroutine-free decoder; the window bounds its memory (Kafka's clients use at most 8 MiB).
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(32<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // options are constants
	}
	return d
}}

// wholeDecoders unpack into memory in one go, at most maxWhole bytes.
var wholeDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxWhole), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // options are constants
	}
	return d
}}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

var lz4Readers = sync.Pool{New: func() any { return lz4.NewReader(nil) }}

// unpack gives a reader of the plain records. done gives the decoder back.
func unpack(c segment.Compression, data []byte) (r io.Reader, done func(), err error) {
	nothing := func() {}
	switch c {
	case segment.CompressionGzip:
		z := gzipReaders.Get().(*gzip.Reader)
		if err := z.Reset(bytes.NewReader(data)); err != nil {
			return nil, nil, fmt.Errorf("%w: gzip: %w", ErrMalformed, err)
		}
		return z, func() { gzipReaders.Put(z) }, nil
	case segment.CompressionSnappy:
		return snappyReader(data), nothing, nil
	case segment.CompressionLZ4:
		z := lz4Readers.Get().(*lz4.Reader)
		z.Reset(bytes.NewReader(data))
		return z, func() { z.Reset(nil); lz4Readers.Put(z) }, nil
	case segment.CompressionZstd:
		z := zstdReaders.Get().(*zstd.Decoder)
		if err := z.Reset(bytes.NewReader(data)); err != nil {
			return nil, nil, fmt.Errorf("%w: zstd: %w", ErrMalformed, err)
		}
		return z, func() { _ = z.Reset(nil); zstdReaders.Put(z) }, nil
	}
	return nil, nil, fmt.Errorf("%w: compression %d", ErrMalformed, c)
}

// xerialMagic begins the framing of snappy-java, which the Java clients write; librdkafka and franz-go write one raw
// block. Both are legal.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func snappyReader(data []byte) io.Reader {
	if len(data) >= 16 && bytes.HasPrefix(data, xerialMagic) {
		return &xerialReader{rest: data[16:]} // magic, version, compatible version
	}
	return &xerialReader{block: data, raw: true}
}

// xerialReader unpacks one snappy block at a time: length-prefixed ones, or a single raw one.
type xerialReader struct {
	rest  []byte // framed blocks to come
	block []byte // the raw block
	raw   bool
	plain []byte // unpacked, not yet read
	buf   []byte
}

func (x *xerialReader) Read(p []byte) (int, error) {
	for len(x.plain) == 0 {
		block, err := x.next()
		if err != nil {
			return 0, err
		}
		n, err := s2.DecodedLen(block)
		if err != nil {
			return 0, fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
		}
		if n > MaxBytes {
			return 0, ErrTooLarge
		}
		if x.buf, err = s2.Decode(x.buf[:cap(x.buf)], block); err != nil {
			return 0, fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
		}
		x.plain = x.buf
	}
	n := copy(p, x.plain)
	x.plain = x.plain[n:]
	return n, nil
}

func (x *xerialReader) next() ([]byte, error) {
	if x.raw {
		b := x.block
		if b == nil {
			return nil, io.EOF
		}
		x.block = nil
		return b, nil
	}
	if len(x.rest) == 0 {
		return nil, io.EOF
	}
	if len(x.rest) < 4 {
		return nil, fmt.Errorf("%w: snappy block header", ErrMalformed)
	}
	n := int64(binary.BigEndian.Uint32(x.rest))
	if n > int64(len(x.rest)-4) {
		return nil, fmt.Errorf("%w: snappy block of %d bytes in %d", ErrMalformed, n, len(x.rest)-4)
	}
	b := x.rest[4 : 4+n]
	x.rest = x.rest[4+n:]
	return b, nil
}
