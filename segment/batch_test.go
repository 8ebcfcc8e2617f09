package segment_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"lagoon/segment"
)

// goldenBatch is one record (key "k", value "abc", header h=xyz, all at 5 ms) spelled out field by field, as in KIP-98.
const goldenBatch = "0000000000000000" + "00000042" + "ffffffff" + "02" + "00000000" + "0000" + "00000000" +
	"0000000000000005" + "0000000000000005" + "ffffffffffffffff" + "ffff" + "ffffffff" + "00000001" +
	"20" + "00" + "00" + "00" + "02" + "6b" + "06" + "616263" + "02" + "02" + "68" + "06" + "78797a"

func TestHeaderGolden(t *testing.T) {
	b := must[[]byte](t)(hex.DecodeString(goldenBatch))
	fixCRC(b)
	h := must[segment.BatchHeader](t)(segment.ValidateBatch(b, segment.Limits{}))
	want := segment.BatchHeader{Length: 0x42, LeaderEpoch: -1, Magic: 2, CRC: binary.BigEndian.Uint32(b[17:]), BaseTimestamp: 5, MaxTimestamp: 5,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Count: 1}
	if h != want {
		t.Errorf("got %+v\nwant %+v", h, want)
	}
	if h.SizeBytes() != int64(len(b)) || h.LastOffset() != 0 || h.NextOffset() != 1 || h.LastSequence() != -1 {
		t.Errorf("size %d, last %d, next %d, sequence %d", h.SizeBytes(), h.LastOffset(), h.NextOffset(), h.LastSequence())
	}
	segment.AssignOffsets(b, 1<<40, 7)
	h = decode(t, b)
	if h.BaseOffset != 1<<40 || h.LeaderEpoch != 7 {
		t.Errorf("after AssignOffsets: %+v", h)
	}
	if _, err := segment.ValidateBatch(b, segment.Limits{AllowControl: true}); err != nil {
		t.Errorf("offsets lie outside the checksum: %v", err)
	}
	segment.SetLogAppendTime(b, 99)
	h = must[segment.BatchHeader](t)(segment.ValidateBatch(b, segment.Limits{AllowControl: true}))
	if !h.LogAppendTime() || h.MaxTimestamp != 99 {
		t.Errorf("after SetLogAppendTime: %+v", h)
	}
}

func TestLastSequenceWraps(t *testing.T) {
	h := segment.BatchHeader{BaseSequence: math.MaxInt32 - 1, LastOffsetDelta: 3}
	if got := h.LastSequence(); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
}

func TestValidateBatch(t *testing.T) {
	put16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b }
	}
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b }
	}
	put64 := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], v); return b }
	}
	window := segment.Limits{NowMs: 1000, Window: true, TimestampBeforeMaxMs: 100, TimestampAfterMaxMs: 10}
	now := segment.Limits{NowMs: 1000, Window: true}
	compressed := put16(21, 4)
	tests := []struct {
		name   string
		spec   batchSpec
		change func([]byte) []byte
		raw    bool // leave the checksum as it is
		lim    segment.Limits
		want   error
	}{
		{name: "plain"},
		{name: "idempotent", spec: batchSpec{pid: 5, records: 3}},
		{name: "nothing", change: func([]byte) []byte { return nil }, want: segment.ErrInvalidRecord},
		{name: "16 bytes", change: func(b []byte) []byte { return b[:16] }, raw: true, want: segment.ErrCorruptBatch},
		{name: "60 bytes", change: func(b []byte) []byte { return b[:60] }, raw: true, want: segment.ErrCorruptBatch},
		{name: "magic 1", change: func(b []byte) []byte { b[16] = 1; return b }, want: segment.ErrInvalidRecord},
		{name: "negative length", change: put32(8, 1<<31), want: segment.ErrCorruptBatch},
		{name: "length below header", change: put32(8, 48), want: segment.ErrCorruptBatch},
		{name: "length beyond bytes", change: put32(8, 1<<30), want: segment.ErrCorruptBatch},
		{name: "largest length", change: put32(8, math.MaxInt32), want: segment.ErrCorruptBatch},
		{name: "two batches", change: func(b []byte) []byte { return append(b, b...) }, want: segment.ErrInvalidRecord},
		{name: "one byte more", change: func(b []byte) []byte { return append(b, 0) }, want: segment.ErrInvalidRecord},
		{name: "too large", lim: segment.Limits{MaxBatchBytes: 70}, want: segment.ErrMessageTooLarge},
		{name: "checksum", change: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, raw: true, want: segment.ErrCorruptBatch},
		{name: "compression 5", change: put16(21, 5), want: segment.ErrUnsupportedCompression},
		{name: "base offset, internal", change: put64(0, 3), lim: segment.Limits{AllowControl: true}},
		{name: "no records", change: put32(57, 0), want: segment.ErrInvalidRecord},
		{name: "count", spec: batchSpec{records: 3}, change: put32(57, 2), want: segment.ErrInvalidRecord},
		{name: "count of 2^31-1", change: put32(57, math.MaxInt32), want: segment.ErrInvalidRecord},
		{name: "negative delta", change: put32(23, math.MaxUint32), want: segment.ErrInvalidRecord},
		{name: "records missing", change: func(b []byte) []byte { return put32(23, 1)(put32(57, 2)(b)) }, want: segment.ErrInvalidRecord},
		{name: "control", spec: batchSpec{attrs: 0x20}, want: segment.ErrInvalidRecord},
		{name: "control, internal", spec: batchSpec{attrs: 0x20, pid: 5, seq: -1}, lim: segment.Limits{AllowControl: true}},
		{name: "producer id -2", change: put64(43, math.MaxUint64-1), want: segment.ErrInvalidRecord},
		{name: "producer without sequence", spec: batchSpec{pid: 5, seq: -1}, want: segment.ErrInvalidRecord},
		{name: "producer without epoch", spec: batchSpec{pid: 5, epoch: -1}, want: segment.ErrInvalidRecord},
		{name: "transaction without producer", spec: batchSpec{attrs: 0x10}, want: segment.ErrInvalidRecord},
		{name: "log append time", spec: batchSpec{attrs: 0x08}, want: segment.ErrInvalidTimestamp},
		{name: "too old", spec: batchSpec{ms: 899}, lim: window, want: segment.ErrInvalidTimestamp},
		{name: "old enough", spec: batchSpec{ms: 900}, lim: window},
		{name: "young enough", spec: batchSpec{ms: 1010}, lim: window},
		{name: "too young", spec: batchSpec{ms: 1011}, lim: window, want: segment.ErrInvalidTimestamp},
		{name: "not now but before", spec: batchSpec{ms: 999}, lim: now, want: segment.ErrInvalidTimestamp},
		{name: "now", spec: batchSpec{ms: 1000}, lim: now},
		{name: "not now but after", spec: batchSpec{ms: 1001}, lim: now, want: segment.ErrInvalidTimestamp},
		{name: "no timestamp", spec: batchSpec{ms: -1}, lim: window},
		{name: "smallest timestamp", spec: batchSpec{ms: math.MinInt64}, lim: window, want: segment.ErrInvalidTimestamp},
		{name: "largest timestamp", spec: batchSpec{ms: math.MaxInt64}, lim: window, want: segment.ErrInvalidTimestamp},
		{name: "largest timestamp without limit", spec: batchSpec{ms: math.MaxInt64}},
		{name: "stamped by the broker", spec: batchSpec{ms: 5}, lim: segment.Limits{NowMs: 1000, TimestampBeforeMaxMs: 100}},
		{name: "compressed, too young", spec: batchSpec{ms: 1011}, change: compressed, lim: window, want: segment.ErrInvalidTimestamp},
		{name: "compressed, body not looked at", change: func(b []byte) []byte { b[61] = 0xff; return compressed(b) }},
		{name: "no key", spec: batchSpec{noKey: true}},
		{name: "no key, compacted", spec: batchSpec{noKey: true}, lim: segment.Limits{RequireKey: true}, want: segment.ErrInvalidRecord},
		{name: "record length", change: func(b []byte) []byte { b[61]++; return b }, want: segment.ErrInvalidRecord},
		{name: "offset delta", change: func(b []byte) []byte { b[64] = 2; return b }, want: segment.ErrInvalidRecord},
		{name: "key length -2", change: func(b []byte) []byte { b[65] = 3; return b }, want: segment.ErrInvalidRecord},
		{name: "endless varint", change: func(b []byte) []byte {
			for i := 62; i < len(b); i++ {
				b[i] = 0xff
			}
			return b
		}, want: segment.ErrInvalidRecord},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := buildBatch(test.spec)
			if test.change != nil {
				b = test.change(b)
			}
			if !test.raw && len(b) >= 61 {
				fixCRC(b)
			}
			_, err := segment.ValidateBatch(b, test.lim)
			if !errors.Is(err, test.want) || (test.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestValidateNamesTheRecords(t *testing.T) {
	b := buildBatch(batchSpec{records: 10, noKey: true})
	_, err := segment.ValidateBatch(b, segment.Limits{RequireKey: true})
	refused, ok := errors.AsType[*segment.RecordsError](err)
	if !ok || len(refused.Indexes) != 10 || refused.Indexes[9] != 9 {
		t.Errorf("got %v (%+v), want all ten records", err, refused)
	}
	_, err = segment.ValidateBatch(buildBatch(batchSpec{records: 5000, noKey: true}), segment.Limits{RequireKey: true})
	if refused, _ := errors.AsType[*segment.RecordsError](err); refused == nil || len(refused.Indexes) != 100 {
		t.Errorf("indexes are not bounded: %v", err)
	}
}

func TestValidateRepairsMaxTimestamp(t *testing.T) {
	b := buildBatch(batchSpec{ms: 500, records: 2})
	binary.BigEndian.PutUint64(b[35:], 1<<50)
	fixCRC(b)
	h := must[segment.BatchHeader](t)(segment.ValidateBatch(b, segment.Limits{}))
	if h.MaxTimestamp != 500 || decode(t, b) != h {
		t.Errorf("header %+v, bytes %+v", h, decode(t, b))
	}
	must[segment.BatchHeader](t)(segment.ValidateBatch(b, segment.Limits{}))
}

func TestValidateDoesNotAllocate(t *testing.T) {
	b := buildBatch(batchSpec{records: 100})
	if n := testing.AllocsPerRun(100, func() { must[segment.BatchHeader](t)(segment.ValidateBatch(b, segment.Limits{NowMs: 1})) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDecodeHeaderRefusesAbsurdHeaders(t *testing.T) {
	tests := map[string]func(b []byte){
		"magic":                func(b []byte) { b[16] = 3 },
		"length":               func(b []byte) { binary.BigEndian.PutUint32(b[8:], 48) },
		"length that wraps":    func(b []byte) { binary.BigEndian.PutUint32(b[8:], math.MaxInt32-11) },
		"negative base":        func(b []byte) { b[0] = 0x80 },
		"base at the end":      func(b []byte) { binary.BigEndian.PutUint64(b, math.MaxInt64-5) },
		"negative delta":       func(b []byte) { b[23] = 0x80 },
		"count above delta":    func(b []byte) { binary.BigEndian.PutUint32(b[57:], 2) },
		"compression id":       func(b []byte) { b[22] = 7 },
		"negative count":       func(b []byte) { b[57] = 0x80 },
		"zeros, as after loss": func(b []byte) { clear(b) },
	}
	for name, change := range tests {
		b := buildBatch(batchSpec{})
		change(b)
		if h, err := segment.DecodeHeader(b); !errors.Is(err, segment.ErrCorruptBatch) {
			t.Errorf("%s: accepted as %+v, %v", name, h, err)
		}
	}
	if _, err := segment.DecodeHeader(make([]byte, 60)); !errors.Is(err, segment.ErrCorruptBatch) {
		t.Errorf("60 bytes: %v", err)
	}
}

func TestCutBatches(t *testing.T) {
	var buf []byte
	var ends []int
	next := segment.Offset(10)
	for i := range 4 { // offsets 10-11, 12-13, 14-15, 16-17
		buf = append(buf, buildBatch(batchSpec{base: next, records: 2, valueSize: 100 + i})...)
		ends = append(ends, len(buf))
		next += 2
	}
	tests := []struct {
		name       string
		buf        []byte
		from       segment.Offset
		max        int64
		bound      segment.Offset
		start, end int
		next       segment.Offset
	}{
		{"all", buf, 10, 1 << 20, 100, 0, ends[3], 18},
		{"inside a batch", buf, 13, 1 << 20, 100, ends[0], ends[3], 18},
		{"one byte still gives a batch", buf, 12, 1, 100, ends[0], ends[1], 14},
		{"two fit", buf, 10, int64(ends[1]), 100, 0, ends[1], 14},
		{"one byte short of two", buf, 10, int64(ends[1]) - 1, 100, 0, ends[0], 12},
		{"bound at a batch", buf, 10, 1 << 20, 14, 0, ends[1], 14},
		{"bound inside a batch", buf, 10, 1 << 20, 15, 0, ends[1], 14},
		{"from at the bound", buf, 14, 1 << 20, 14, ends[1], ends[1], 14},
		{"torn last batch", buf[:ends[3]-1], 10, 1 << 20, 100, 0, ends[2], 16},
		{"only a header", buf[:61], 10, 1 << 20, 100, 0, 0, 10},
		{"less than a header", buf[:60], 10, 1 << 20, 100, 0, 0, 10},
		{"behind everything", buf, 18, 1 << 20, 100, ends[3], ends[3], 18},
		{"skipped batch is torn", buf[:ends[1]-1], 14, 1 << 20, 100, ends[0], ends[0], 14},
		{"nothing", nil, 5, 1 << 20, 100, 0, 0, 5},
	}
	for _, test := range tests {
		start, end, next, err := segment.CutBatches(test.buf, test.from, test.max, test.bound)
		if err != nil || start != test.start || end != test.end || next != test.next {
			t.Errorf("%s: got %d:%d next %d, %v; want %d:%d next %d", test.name, start, end, next, err, test.start, test.end, test.next)
		}
	}
	bad := append([]byte{}, buf...)
	bad[ends[0]+16] = 9
	start, end, next, err := segment.CutBatches(bad, 10, 1<<20, 100)
	corrupt, ok := errors.AsType[*segment.CorruptError](err)
	if !ok || corrupt.Pos != int64(ends[0]) || start != 0 || end != ends[0] || next != 12 {
		t.Errorf("absurd header: %d:%d next %d, %v", start, end, next, err)
	}
	if _, _, _, err := segment.CutBatches(append(append([]byte{}, buf[:ends[0]]...), buf[:ends[0]]...), 10, 1<<20, 100); err == nil || !strings.Contains(err.Error(), "after offset 11") {
		t.Errorf("offsets that go back: %v", err)
	}
}
