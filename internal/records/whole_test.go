package records_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/records"
)

// TestUnpacker: what it says of a batch is what Each says, however often it is walked, for batches that fit into its memory and larger ones,
// sound ones and others.
func TestUnpacker(t *testing.T) {
	var u records.Unpacker
	text := func(each func(func(records.Record) bool) error) string {
		var out bytes.Buffer
		err := each(func(r records.Record) bool {
			fmt.Fprintf(&out, "%d@%d %s=%d bytes;", r.Offset, r.TimestampMs, r.Key, len(r.Value))
			return true
		})
		if err != nil && !errors.Is(err, records.ErrMalformed) && !errors.Is(err, records.ErrTooLarge) {
			t.Errorf("error of no known kind: %v", err)
		}
		fmt.Fprint(&out, err != nil)
		return out.String()
	}
	for attr, codec := range []kgo.CompressionCodec{{}, kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		for _, value := range []int{0, 10, 30 << 10, 500 << 10} {
			h, b := batch(t, codec, int16(attr), 20, make([]byte, value))
			for cut := range 3 {
				h, b := h, bytes.Clone(b)
				if cut > 0 {
					b = b[:len(b)-cut*7]
					h.Length = int32(len(b) - 12)
				}
				want := text(func(fn func(records.Record) bool) error { return records.Each(h, b, fn) })
				opened := u.Open(h, b)
				for range 2 {
					if got := text(opened.Each); got != want && cut == 0 {
						t.Errorf("codec %d, values of %d bytes: %s, want %s", attr, value, got, want)
					} else if cut > 0 && got[len(got)-4:] != want[len(want)-4:] {
						t.Errorf("codec %d, values of %d bytes, cut: %s, want %s", attr, value, got, want)
					}
				}
			}
		}
	}
}
