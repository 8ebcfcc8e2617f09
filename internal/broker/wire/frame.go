package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// MinFrameBytes is the smallest request: key, version and correlation id (header v0).
const MinFrameBytes = 8

// growth is how many times larger the next buffer of a frame may be than the bytes that have arrived. 16 keeps what an
// idle claim can hold small (4 KiB before the first byte) and copies little. The last step may be twice as large: a batch of 64 KiB,
// the size of many clients, would else be copied for the few bytes around it.
const growth = 16

// step is the size of the next buffer of a frame of total bytes, of which got have arrived.
func step(got, total int) int {
	if total <= 2*growth*got {
		return total
	}
	return growth * got
}

// Budget bounds the memory of frames over all connections. Acquire may wait; its error ends the connection.
type Budget interface {
	Acquire(n int64) error
	Release(n int64)
}

// FrameReader cuts a byte stream into frames: int32 size, then that many bytes. Not safe for concurrent use.
// A small buffer inside saves a system call for small requests and is all that an idle connection holds.
type FrameReader struct {
	src    io.Reader
	max    int32
	budget Budget
	r, w   int
	small  [512]byte
}

// NewFrameReader reads frames of at most maxBytes from src.
func NewFrameReader(src io.Reader, maxBytes int32, budget Budget) *FrameReader {
	f := &FrameReader{}
	f.Init(src, maxBytes, budget)
	return f
}

// Init is NewFrameReader for a FrameReader inside another struct.
func (f *FrameReader) Init(src io.Reader, maxBytes int32, budget Budget) {
	f.src, f.max, f.budget, f.r, f.w = src, maxBytes, budget, 0, 0
}

// Size waits for the next length prefix and checks it before anything is allocated. io.EOF means a clean end between
// frames. After any other error of src (a deadline) Size can be called again; Started tells whether a prefix has begun.
func (f *FrameReader) Size() (int32, error) {
	for f.w-f.r < 4 {
		if f.r > 0 {
			f.w = copy(f.small[:], f.small[f.r:f.w])
			f.r = 0
		}
		n, err := f.src.Read(f.small[f.w:])
		f.w += n
		if err != nil && f.w < 4 {
			if err == io.EOF && f.w > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	size := int32(binary.BigEndian.Uint32(f.small[f.r:]))
	if size < MinFrameBytes || size > f.max {
		return 0, fmt.Errorf("%w: %d bytes, allowed are %d to %d", ErrFrameSize, size, MinFrameBytes, f.max)
	}
	f.r += 4
	return size, nil
}

// Started reports whether part of the next length prefix has arrived.
func (f *FrameReader) Started() bool { return f.w > f.r }

// Frame is one request's bytes. Whoever owns it calls Release once.
type Frame struct {
	buf     *Buffer
	budget  Budget
	charged int64
}

// Bytes is the frame without its length prefix, valid until Release.
func (f *Frame) Bytes() []byte { return f.buf.B }

// Release gives memory and budget back.
func (f *Frame) Release() {
	f.buf.Release()
	f.budget.Release(f.charged)
	f.buf = nil
}

// Body reads the size bytes that Size announced. Memory is taken in steps as bytes arrive, each step charged to the
// budget before it is allocated.
func (f *FrameReader) Body(size int32) (Frame, error) {
	frame := Frame{budget: f.budget}
	total := int(size)
	if err := f.grow(&frame, min(total, 1<<minClass)); err != nil {
		return Frame{}, err
	}
	n := min(total, f.w-f.r)
	frame.buf.B = append(frame.buf.B, f.small[f.r:f.r+n]...)
	f.r += n
	for got := n; got < total; {
		room := min(total, cap(frame.buf.B))
		if got == room {
			if err := f.grow(&frame, step(got, total)); err != nil {
				frame.Release()
				return Frame{}, err
			}
			continue
		}
		n, err := f.src.Read(frame.buf.B[got:room])
		got += n
		frame.buf.B = frame.buf.B[:got]
		if err != nil && got < total {
			frame.Release()
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
	}
	return frame, nil
}

// grow moves the frame to a buffer for at least size bytes. Only the larger buffer stays charged.
func (f *FrameReader) grow(frame *Frame, size int) error {
	charge := int64(size)
	if err := f.budget.Acquire(charge - frame.charged); err != nil {
		return err
	}
	frame.charged = charge
	next := NewBuffer(size)
	if frame.buf != nil {
		next.B = append(next.B, frame.buf.B...)
		frame.buf.Release()
	}
	frame.buf = next
	return nil
}
