package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"lagoon/segment"
)

// streamWindow is the largest window for which a zstd frame is unpacked as a stream, with memory of that size whatever is in the frame:
// what producers ask for up to compression level 19. Levels 20 to 22 ask for 32, 64 and 128 MiB, however small the batch is.
const (
	streamWindow = 8 << 20
	maxWindow    = 128 << 20
)

var zstdReaders = sync.Pool{New: func() any {
	// One goroutine-free decoder; the window bounds its memory.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(streamWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // options are constants
	}
	return d
}}

// wideDecoders unpack frames with large windows into the memory that they are given: that is the window.
var wideDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // options are constants
	}
	return d
}}

// wideZstd unpacks a frame that needs a large window. Memory follows what can really be in it, at most MaxBytes.
func wideZstd(h zstd.Header, data []byte) ([]byte, error) {
	limit := min(MaxBytes, len(data)/4*(128<<10)) // a block has at least 4 bytes, and unpacks to at most 128 KiB
	room := min(max(4*len(data), 64<<10), limit)
	if h.HasFCS {
		if h.FrameContentSize > uint64(limit) {
			return nil, ErrTooLarge
		}
		room = int(h.FrameContentSize)
	}
	d := wideDecoders.Get().(*zstd.Decoder)
	defer wideDecoders.Put(d)
	for ; ; room = min(4*room, limit) {
		plain, err := d.DecodeAll(data, make([]byte, 0, room))
		switch {
		case err == nil:
			return plain, nil
		case !errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return nil, fmt.Errorf("%w: zstd: %w", ErrMalformed, err)
		case room == limit || h.HasFCS:
			return nil, ErrTooLarge
		}
	}
}

// isWide tells whether a zstd frame needs more than streamWindow.
func isWide(h zstd.Header) bool {
	return h.WindowSize > streamWindow || h.SingleSegment && h.FrameContentSize > streamWindow
}

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
		var h zstd.Header
		if h.Decode(data) == nil && isWide(h) {
			plain, err := wideZstd(h, data)
			return bytes.NewReader(plain), nothing, err
		}
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

// snappyRatio is more than a block can unpack to per byte: 64 bytes take 3. Memory is not for what a block says alone.
const snappyRatio = 32

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
		if n > snappyRatio*len(block) {
			return 0, fmt.Errorf("%w: snappy block of %d bytes claims to hold %d", ErrMalformed, len(block), n)
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
