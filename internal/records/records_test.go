package records_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/records"
	"lagoon/segment"
)

// batch packs n records of the given value with one of the stock codecs.
func batch(t testing.TB, codec kgo.CompressionCodec, attr int16, n int, value []byte) (segment.BatchHeader, []byte) {
	t.Helper()
	var plain []byte
	for i := range n {
		r := kmsg.NewRecord()
		r.TimestampDelta64, r.OffsetDelta, r.Key, r.Value = int64(i), int32(i), fmt.Appendf(nil, "k%d", i), value
		body := r.AppendTo(nil)[1:] // without the zero length
		plain = append(plain, varint(int64(len(body)))...)
		plain = append(plain, body...)
	}
	if attr != 0 {
		c, err := kgo.DefaultCompressor(codec)
		if err != nil {
			t.Fatal(err)
		}
		var got kgo.CompressionCodecType
		plain, got = compress(c, plain)
		if int16(got) != attr {
			t.Fatalf("packed with codec %d, want %d", got, attr)
		}
	}
	h := segment.BatchHeader{BaseOffset: 100, Length: int32(49 + len(plain)), Magic: 2, Attributes: attr,
		LastOffsetDelta: int32(n - 1), BaseTimestamp: 1000, MaxTimestamp: int64(1000 + n - 1), ProducerID: -1, Count: int32(n)}
	return h, append(make([]byte, segment.BatchHeaderSize), plain...)
}

func TestEachCodec(t *testing.T) {
	codecs := []kgo.CompressionCodec{{}, kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for attr, codec := range codecs {
		h, b := batch(t, codec, int16(attr), 50, []byte("value value value value value"))
		var seen int
		err := records.Each(h, b, func(r records.Record) bool {
			if want := segment.Offset(100 + seen); r.Offset != want || r.TimestampMs != int64(1000+seen) || string(r.Key) != fmt.Sprintf("k%d", seen) {
				t.Fatalf("codec %d: record %d is %+v", attr, seen, r)
			}
			seen++
			return true
		})
		if err != nil || seen != 50 {
			t.Errorf("codec %d: %d records, %v", attr, seen, err)
		}
	}
}

func TestEachStopsWhenTold(t *testing.T) {
	h, b := batch(t, kgo.CompressionCodec{}, 0, 10, nil)
	seen := 0
	if err := records.Each(h, b, func(records.Record) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Errorf("saw %d, %v; want 3", seen, err)
	}
}

func TestBombsAreRefused(t *testing.T) {
	bomb := make([]byte, 80<<20)
	for attr, codec := range map[int16]kgo.CompressionCodec{1: kgo.GzipCompression(), 2: kgo.SnappyCompression(), 3: kgo.Lz4Compression(), 4: kgo.ZstdCompression()} {
		h, b := batch(t, codec, attr, 1, bomb)
		err := records.Each(h, b, func(records.Record) bool { return true })
		if !errors.Is(err, records.ErrTooLarge) && !errors.Is(err, records.ErrMalformed) {
			t.Errorf("codec %d: %v, want a refusal", attr, err)
		}
	}
}

// zstdFrame is a frame of one block as it is, with a window as large as a producer asks for with a high compression level.
func zstdFrame(windowLog byte, plain []byte) []byte {
	size := uint32(len(plain))<<3 | 1 // the last block, raw
	f := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (windowLog - 10) << 3, byte(size), byte(size >> 8), byte(size >> 16)}
	return append(f, plain...)
}

// zstd -20 to -22 ask for windows of 32 to 128 MiB, whatever is in the batch: it is read, and costs no such memory.
func TestLargeZstdWindows(t *testing.T) {
	_, plain := batch(t, kgo.CompressionCodec{}, 0, 3, []byte("value"))
	plain = plain[segment.BatchHeaderSize:]
	for windowLog := byte(20); windowLog <= 28; windowLog++ {
		frame := zstdFrame(windowLog, plain)
		h := segment.BatchHeader{Length: int32(49 + len(frame)), Attributes: 4, LastOffsetDelta: 2, Count: 3}
		b := append(make([]byte, segment.BatchHeaderSize), frame...)
		var u records.Unpacker
		opened := u.Open(h, b)
		for name, each := range map[string]func(func(records.Record) bool) error{
			"each":     func(fn func(records.Record) bool) error { return records.Each(h, b, fn) },
			"unpacker": opened.Each,
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			seen := 0
			err := each(func(r records.Record) bool { seen++; return string(r.Value) == "value" })
			runtime.ReadMemStats(&after)
			if windowLog > 27 { // no producer asks for it, and zstd itself refuses it
				if !errors.Is(err, records.ErrMalformed) {
					t.Errorf("%s, window 2^%d: %v", name, windowLog, err)
				}
				continue
			}
			if err != nil || seen != 3 {
				t.Errorf("%s, window 2^%d: %d records, %v", name, windowLog, seen, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
				t.Errorf("%s, window 2^%d: %d bytes of memory for a batch of %d", name, windowLog, n, len(b))
			}
		}
	}
}

// A snappy block that says that it is large, and is not, costs no memory.
func TestSnappyClaims(t *testing.T) {
	block := append(binary.AppendUvarint(nil, 60<<20), 0, 'x')
	h := segment.BatchHeader{Length: int32(49 + len(block)), Attributes: 2, Count: 1}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := records.Each(h, append(make([]byte, segment.BatchHeaderSize), block...), func(records.Record) bool { return true })
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 || !errors.Is(err, records.ErrMalformed) {
		t.Errorf("%d bytes of memory for a block of %d, %v", n, len(block), err)
	}
	zeros := make([]byte, 10<<20) // nothing is packed tighter
	h, b := batch(t, kgo.SnappyCompression(), 2, 1, zeros)
	if err := records.Each(h, b, func(r records.Record) bool { return len(r.Value) == len(zeros) }); err != nil {
		t.Error(err)
	}
}

func TestMalformedIsAnError(t *testing.T) {
	h, b := batch(t, kgo.CompressionCodec{}, 0, 5, []byte("abc"))
	for cut := segment.BatchHeaderSize; cut < len(b); cut++ {
		h := h
		h.Length = int32(cut - 12)
		if err := records.Each(h, b[:cut], func(records.Record) bool { return true }); !errors.Is(err, records.ErrMalformed) {
			t.Fatalf("cut at %d: %v, want ErrMalformed", cut, err)
		}
	}
}

func FuzzEach(f *testing.F) {
	for attr, codec := range []kgo.CompressionCodec{{}, kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		_, b := batch(f, codec, int16(attr), 3, []byte("seed"))
		f.Add(int16(attr), int32(3), b[segment.BatchHeaderSize:])
	}
	f.Fuzz(func(t *testing.T, attr int16, count int32, data []byte) {
		h := segment.BatchHeader{Length: int32(49 + len(data)), Attributes: attr & 7, LastOffsetDelta: 1 << 20, Count: count}
		full := append(make([]byte, segment.BatchHeaderSize), data...)
		n := int32(0)
		err := records.Each(h, full, func(r records.Record) bool {
			n++
			if len(r.Value) > records.MaxBytes {
				t.Fatalf("value of %d bytes", len(r.Value))
			}
			return true
		})
		if err == nil && n != max(count, 0) {
			t.Fatalf("%d records without error, header says %d", n, count)
		}
	})
}

func varint(v int64) []byte {
	u := uint64(v)<<1 ^ uint64(v>>63)
	var out []byte
	for u >= 0x80 {
		out = append(out, byte(u)|0x80)
		u >>= 7
	}
	return append(out, byte(u))
}

func compress(c kgo.Compressor, plain []byte) ([]byte, kgo.CompressionCodecType) {
	return c.Compress(new(bytes.Buffer), plain)
}
