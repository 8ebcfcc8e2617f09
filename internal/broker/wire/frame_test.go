package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"lagoon/internal/broker/wire"
)

// ledger is a budget that remembers.
type ledger struct {
	used, peak int64
	limit      int64 // 0: none
}

var errOverLimit = errors.New("over the limit")

func (l *ledger) Acquire(n int64) error {
	if l.limit > 0 && l.used+n > l.limit {
		return errOverLimit
	}
	l.used += n
	l.peak = max(l.peak, l.used)
	return nil
}

func (l *ledger) Release(n int64) { l.used -= n }

func framed(bodies ...[]byte) (out []byte) {
	for _, b := range bodies {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	return out
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func next(r *wire.FrameReader) (wire.Frame, error) {
	size, err := r.Size()
	if err != nil {
		return wire.Frame{}, err
	}
	return r.Body(size)
}

func TestFrames(t *testing.T) {
	var bodies [][]byte
	for _, n := range []int{8, 9, 500, 508, 512, 513, 4095, 4096, 4097, 65_536, 65_537, 1 << 20, 5 << 20, 10} {
		bodies = append(bodies, pattern(n))
	}
	stream := framed(bodies...)
	for name, src := range map[string]io.Reader{
		"whole":     bytes.NewReader(stream),
		"one byte":  iotest.OneByteReader(bytes.NewReader(stream)),
		"half":      iotest.HalfReader(bytes.NewReader(stream)),
		"early EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			l := &ledger{}
			r := wire.NewFrameReader(src, 6<<20, l)
			for i, want := range bodies {
				f, err := next(r)
				if err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if !bytes.Equal(f.Bytes(), want) {
					t.Fatalf("frame %d differs", i)
				}
				if l.used < int64(len(want)) {
					t.Fatalf("frame %d of %d bytes is charged with %d", i, len(want), l.used)
				}
				f.Release()
				if l.used != 0 {
					t.Fatalf("frame %d left a charge of %d", i, l.used)
				}
			}
			if _, err := next(r); err != io.EOF {
				t.Fatalf("at the end: %v", err)
			}
		})
	}
}

func TestFrameSizeIsCheckedFirst(t *testing.T) {
	for _, size := range []uint32{0, 1, 7, 1<<20 + 1, 1 << 31, 1<<32 - 1} {
		l := &ledger{}
		src := append(binary.BigEndian.AppendUint32(nil, size), make([]byte, 100)...)
		if _, err := next(wire.NewFrameReader(bytes.NewReader(src), 1<<20, l)); !errors.Is(err, wire.ErrFrameSize) {
			t.Fatalf("size %d: %v", size, err)
		}
		if l.peak != 0 {
			t.Fatalf("size %d: %d bytes were charged", size, l.peak)
		}
	}
}

// A claim costs next to nothing until bytes arrive.
func TestFrameMemoryFollowsTheBytes(t *testing.T) {
	claim := binary.BigEndian.AppendUint32(nil, 100<<20)
	for _, arrived := range []int{0, 100, 4096, 10_000, 70_000} {
		l := &ledger{}
		_, err := next(wire.NewFrameReader(bytes.NewReader(append(claim, make([]byte, arrived)...)), 100<<20, l))
		if err != io.ErrUnexpectedEOF {
			t.Fatalf("%d bytes: %v", arrived, err)
		}
		if l.peak > int64(max(4096, 16*arrived)) || l.used != 0 {
			t.Fatalf("%d bytes: peak %d, left %d", arrived, l.peak, l.used)
		}
	}
}

// What growing copies, told by what the budget was asked for: 4 KiB of a frame up to 128 KiB, less than two thirds of any.
func TestFrameIsHardlyCopied(t *testing.T) {
	for _, size := range []int{4096, 4097, 65_536, 66_700, 131_072, 131_073, 1 << 20, 1<<20 + 100, 5 << 20} {
		l := &asked{}
		f, err := next(wire.NewFrameReader(bytes.NewReader(framed(pattern(size))), 6<<20, l))
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
		copied := 0
		for _, s := range l.sizes[:len(l.sizes)-1] {
			copied += s
		}
		if copied > 4096 && (size <= 128<<10 || 3*copied >= 2*size) {
			t.Errorf("frame of %d bytes: steps %v copy %d bytes", size, l.sizes, copied)
		}
	}
}

// asked is a budget that remembers what it was asked for, as sums.
type asked struct{ sizes []int }

func (s *asked) Acquire(n int64) error {
	if len(s.sizes) > 0 {
		n += int64(s.sizes[len(s.sizes)-1])
	}
	s.sizes = append(s.sizes, int(n))
	return nil
}

func (s *asked) Release(int64) {}

func TestFrameEndsWithTheBudget(t *testing.T) {
	l := &ledger{limit: 10_000}
	if _, err := next(wire.NewFrameReader(bytes.NewReader(framed(pattern(100_000))), 1<<20, l)); !errors.Is(err, errOverLimit) {
		t.Fatalf("got %v", err)
	}
	if l.used != 0 {
		t.Fatalf("a charge of %d is left", l.used)
	}
}

func TestFrameCutShort(t *testing.T) {
	stream := framed(pattern(600))
	for n := 1; n < len(stream); n++ {
		if _, err := next(wire.NewFrameReader(bytes.NewReader(stream[:n]), 1<<20, &ledger{})); err != io.ErrUnexpectedEOF {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(framed(pattern(8), pattern(600)), uint8(1))
	f.Add([]byte{0, 0, 0, 9, 1}, uint8(3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint8(7))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		l := &ledger{}
		r := wire.NewFrameReader(&steps{stream, int(step)%5000 + 1}, 1<<16, l)
		rest := stream
		for {
			frame, err := next(r)
			if err != nil {
				break
			}
			size := binary.BigEndian.Uint32(rest)
			if !bytes.Equal(frame.Bytes(), rest[4:4+size]) {
				t.Fatal("frame differs from the stream")
			}
			rest = rest[4+size:]
			frame.Release()
		}
		if l.used != 0 {
			t.Fatalf("a charge of %d is left", l.used)
		}
	})
}

// steps reads in portions.
type steps struct {
	src []byte
	n   int
}

func (s *steps) Read(p []byte) (int, error) {
	if len(s.src) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.n)], s.src)
	s.src = s.src[n:]
	return n, nil
}
