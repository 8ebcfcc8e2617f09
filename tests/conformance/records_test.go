package conformance

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// header is one record header. A nil value is null.
type header struct {
	Key   string `json:"k"`
	Value []byte `json:"v"`
}

// record is what every client must see alike. Nil keys and values are null; the JSON is what the Python drivers speak.
type record struct {
	Offset  int64    `json:"o"`
	Ms      int64    `json:"t"`
	Key     []byte   `json:"k"`
	Value   []byte   `json:"v"`
	Headers []header `json:"h"`
}

// codecs in the order of their numbers in a batch's attributes.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// firstMs is the create time of a data set's first record.
const firstMs = 1_700_000_000_123

// bigValue is the least size of the values that every client compresses.
const bigValue = 1 << 10

// text is a data set that every client can write: valid UTF-8 without control characters, some of it well compressible.
func text(n int) []record {
	out := make([]record, n)
	for i := range out {
		r := record{Offset: int64(i), Ms: firstMs + int64(i)*977, Key: fmt.Appendf(nil, "ключ-%d", i%5), Value: fmt.Appendf(nil, "value %d: größer, 更大", i)}
		switch i % 7 {
		case 1:
			r.Key = nil
		case 2:
			r.Value = nil
		case 3, 6:
			r.Value = []byte(strings.Repeat(fmt.Sprintf("record %d repeats itself; ", i), 200))
		}
		for h := range i % 3 {
			r.Headers = append(r.Headers, header{Key: "trace", Value: fmt.Appendf(nil, "%d-%d", i, h)}) // the same key twice is legal
		}
		out[i] = r
	}
	return out
}

// anyBytes is text with what only binary-safe clients can write: every byte value, empty beside null.
func anyBytes(n int) []record {
	out := text(n)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i := range out {
		switch i % 7 {
		case 0:
			out[i].Value = bytes.Repeat(all, 1+i)
			out[i].Headers = append(out[i].Headers, header{Key: "bytes", Value: all})
		case 4:
			out[i].Key = []byte{}
			out[i].Headers = append(out[i].Headers, header{Key: "empty", Value: []byte{}}, header{Key: "null"})
		case 5:
			out[i].Value = []byte{}
		}
	}
	return out
}

// same fails when two reads of a partition differ, and names the first difference.
func same(t *testing.T, what string, got, want []record) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d records, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if w, g := plain(want[i]), plain(got[i]); !reflect.DeepEqual(w, g) {
			t.Errorf("%s: record %d differs (-want +got):\n%.1000s", what, i, cmp.Diff(w, g))
			return
		}
	}
}

// plain makes "no headers" one value; nothing on the wire tells an empty list from none.
func plain(r record) record {
	if len(r.Headers) == 0 {
		r.Headers = nil
	}
	return r
}

// withTimes takes over the times of a read, for producers that do not let the caller choose; they must not go backwards from floor.
func withTimes(t *testing.T, want, read []record, floor int64) []record {
	t.Helper()
	out := append([]record(nil), want...)
	for i := range min(len(want), len(read)) {
		if read[i].Ms < floor {
			t.Errorf("record %d has time %d, produced after %d", i, read[i].Ms, floor)
		}
		out[i].Ms = read[i].Ms
	}
	return out
}
