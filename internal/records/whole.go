package records

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"lagoon/segment"
)

// maxWhole is what a batch may unpack to for an Unpacker to keep it: four times the usual limit of a batch.
const maxWhole = 4 << 20

// Unpacker unpacks a batch once for several walks. It keeps up to 4 MiB of memory from batch to batch; a batch that unpacks to more is
// unpacked by each walk. The zero value is ready. Not safe for concurrent use.
type Unpacker struct{ buf []byte }

// Batch is a batch whose records can be walked more than once, until the next Open.
type Batch struct {
	h     segment.BatchHeader
	batch []byte
	plain []byte
	whole bool // plain are its records
}

// Open prepares the walks. batch is the whole batch, header included; it is kept until the next Open.
func (u *Unpacker) Open(h segment.BatchHeader, batch []byte) Batch {
	b := Batch{h: h, batch: batch}
	if int64(len(batch)) != h.SizeBytes() || len(batch) < segment.BatchHeaderSize || h.Compression() == segment.CompressionNone {
		return b
	}
	if u.unpack(h.Compression(), batch[segment.BatchHeaderSize:]) == nil {
		b.plain, b.whole = u.buf, true
	}
	return b // what cannot be unpacked fails again, or is too large, when it is walked
}

// Each is Each of the package.
func (b Batch) Each(fn func(Record) bool) error {
	if !b.whole {
		return Each(b.h, b.batch, fn)
	}
	if err := eachPlain(b.h, b.plain, fn); err != nil {
		return fmt.Errorf("batch %d: %w", b.h.BaseOffset, err)
	}
	return nil
}

func (u *Unpacker) unpack(c segment.Compression, data []byte) (err error) {
	if c == segment.CompressionZstd {
		d := wholeDecoders.Get().(*zstd.Decoder)
		defer wholeDecoders.Put(d)
		u.buf, err = d.DecodeAll(data, u.buf[:0])
		return err
	}
	r, done, err := unpack(c, data)
	if err != nil {
		return err
	}
	defer done()
	u.buf = u.buf[:0]
	for {
		if len(u.buf) == cap(u.buf) {
			if len(u.buf) >= maxWhole {
				return ErrTooLarge
			}
			u.buf = append(u.buf, make([]byte, min(max(len(u.buf), bytes.MinRead), maxWhole-len(u.buf)))...)[:len(u.buf)]
		}
		n, err := r.Read(u.buf[len(u.buf):cap(u.buf)])
		u.buf = u.buf[:len(u.buf)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
