package compaction_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/compaction"
	"lagoon/internal/records"
	"lagoon/segment"
)

// rec is one record of a test's batch.
type rec struct {
	key, value string // value "": a delete marker
	ms         int64
	noKey      bool
}

// spec is a batch.
type spec struct {
	base  segment.Offset
	recs  []rec
	codec segment.Compression
	attrs int16
	pid   int64 // 0: none
	epoch int16
	seq   int32
}

var packer records.Packer

// build encodes the batch.
func build(t testing.TB, s spec) (segment.BatchHeader, []byte) {
	t.Helper()
	var body bytes.Buffer
	body.Write(make([]byte, segment.BatchHeaderSize))
	w, err := packer.To(s.codec, &body)
	if err != nil {
		t.Fatal(err)
	}
	newest := int64(-1)
	for i, r := range s.recs {
		b := []byte{0}
		b = binary.AppendVarint(b, r.ms-s.recs[0].ms)
		b = binary.AppendVarint(b, int64(i))
		if r.noKey {
			b = binary.AppendVarint(b, -1)
		} else {
			b = append(binary.AppendVarint(b, int64(len(r.key))), r.key...)
		}
		if r.value == "" {
			b = binary.AppendVarint(b, -1)
		} else {
			b = append(binary.AppendVarint(b, int64(len(r.value))), r.value...)
		}
		b = append(binary.AppendVarint(b, 1), "\x02h\x02v"...)
		if _, err := w.Write(append(binary.AppendVarint(nil, int64(len(b))), b...)); err != nil {
			t.Fatal(err)
		}
		newest = max(newest, r.ms)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(body.Bytes())
	be := binary.BigEndian
	pid, epoch, seq := int64(-1), int16(-1), int32(-1)
	if s.pid != 0 {
		pid, epoch, seq = s.pid, s.epoch, s.seq
	}
	be.PutUint64(b, uint64(s.base))
	be.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	be.PutUint16(b[21:], uint16(s.attrs)|uint16(s.codec))
	be.PutUint32(b[23:], uint32(max(len(s.recs), 1)-1))
	be.PutUint64(b[27:], uint64(s.recs[0].ms))
	be.PutUint64(b[35:], uint64(newest))
	be.PutUint64(b[43:], uint64(pid))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(seq))
	be.PutUint32(b[57:], uint32(len(s.recs)))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	h, err := segment.DecodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	return h, b
}

const (
	transactional = 0x10
	control       = 0x20
)

// marker is a control batch.
func marker(t testing.TB, base segment.Offset, pid int64, commit bool, ms int64) []byte {
	kind := "\x00\x00\x00\x00"
	if commit {
		kind = "\x00\x00\x00\x01"
	}
	_, b := build(t, spec{base: base, pid: pid, seq: -1, attrs: transactional | control, recs: []rec{{key: kind, value: "\x00\x00\x00\x00\x00\x01", ms: ms}}})
	return b
}

// cleaning is one pass over a log in memory.
type cleaning struct {
	now, keep int64
	from, end segment.Offset // dirty from; end of the file that is written, 0: that of the last batch
	aborted   []segment.AbortedTxn
	producers map[int64]compaction.Producer
	mapBytes  int64
}

// run cleans the batches and says up to where.
func (c cleaning) run(t testing.TB, log [][]byte) (out [][]byte, cleanedTo segment.Offset, stats compaction.Stats) {
	t.Helper()
	if c.mapBytes == 0 {
		c.mapBytes = 1 << 20
	}
	m := newOffsetMap(c.mapBytes, 1<<40)
	mapping := compaction.Mapper{Map: m, From: c.from, Txns: compaction.NewTransactions()}
	mapping.Txns.Expect(c.aborted)
	for _, b := range log {
		full, err := mapping.Add(header(t, b), b)
		if err != nil {
			t.Fatal(err)
		}
		if full {
			break
		}
	}
	f := compaction.Filter{Map: m, Txns: compaction.NewTransactions(), NowMs: c.now, DeleteRetentionMs: c.keep, Producers: c.producers}
	f.Txns.Expect(c.aborted)
	end := c.end
	if end == 0 {
		end = header(t, log[len(log)-1]).NextOffset()
	}
	for _, b := range log {
		got, fate, err := f.Next(header(t, b), b, end)
		if err != nil {
			t.Fatal(err)
		}
		if (fate == compaction.Drop) != (got == nil) {
			t.Fatalf("fate %d with %d bytes", fate, len(got))
		}
		if got == nil {
			continue
		}
		h, was := header(t, got), header(t, b)
		if h.BaseOffset != was.BaseOffset || h.LastOffset() != was.LastOffset() || h.ProducerID != was.ProducerID || h.LastSequence() != was.LastSequence() ||
			h.CRC != crc32.Checksum(got[21:], crc32.MakeTable(crc32.Castagnoli)) || h.SizeBytes() != int64(len(got)) {
			t.Fatalf("batch %+v became %+v", was, h)
		}
		out = append(out, bytes.Clone(got))
	}
	return out, m.End(), f.Stats
}

func header(t testing.TB, b []byte) segment.BatchHeader {
	t.Helper()
	h, err := segment.DecodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// text shows a log: offset@time key=value.
func text(t testing.TB, log [][]byte) string {
	t.Helper()
	var out bytes.Buffer
	for _, b := range log {
		h := header(t, b)
		fmt.Fprintf(&out, "[%d-%d", h.BaseOffset, h.LastOffset())
		if h.DeleteHorizon() {
			fmt.Fprintf(&out, " until %d", h.BaseTimestamp)
		}
		if h.IsControl() {
			out.WriteString(" marker")
		}
		if err := records.Each(h, b, func(r records.Record) bool {
			if h.IsControl() {
				return true
			}
			fmt.Fprintf(&out, " %d@%d %s=%s", r.Offset, r.TimestampMs, r.Key, r.Value)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		out.WriteString("]")
	}
	return out.String()
}

func batchOf(t testing.TB, s spec) []byte { _, b := build(t, s); return b }

// TestFilter follows one log through its life, in every codec.
func TestFilter(t *testing.T) {
	for codec := segment.CompressionNone; codec <= segment.CompressionZstd; codec++ {
		log := [][]byte{
			batchOf(t, spec{base: 0, codec: codec, recs: []rec{{key: "a", value: "1", ms: 10}, {key: "b", value: "1", ms: 12}, {key: "a", value: "2", ms: 11}}}),
			batchOf(t, spec{base: 3, codec: codec, recs: []rec{{key: "b", value: "2", ms: 20}}}),
			batchOf(t, spec{base: 4, codec: codec, recs: []rec{{key: "c", value: "1", ms: 30}, {key: "a", ms: 31}, {noKey: true, value: "x", ms: 32}}}),
			batchOf(t, spec{base: 7, codec: codec, recs: []rec{{key: "b", value: "3", ms: 40}}}),
		}
		for _, step := range []struct {
			now  int64
			want string
		}{
			{100, "[4-6 until 150 4@30 c=1 5@31 a=][7-7 7@40 b=3]"},
			{149, "[4-6 until 150 4@30 c=1 5@31 a=][7-7 7@40 b=3]"},
			{150, "[4-6 until 150 4@30 c=1][7-7 7@40 b=3]"},
		} {
			log, _, _ = cleaning{now: step.now, keep: 50}.run(t, log)
			if got := text(t, log); got != step.want {
				t.Errorf("codec %d at %d: %s, want %s", codec, step.now, got, step.want)
			}
			for _, b := range log {
				if header(t, b).Compression() != codec {
					t.Errorf("codec %d became %d", codec, header(t, b).Compression())
				}
			}
		}
	}
}

// TestFilterLongestTerm: delete markers that stay for ever have a term that never ends, and one that began before.
func TestFilterLongestTerm(t *testing.T) {
	log := [][]byte{batchOf(t, spec{recs: []rec{{key: "a", ms: 31}}}), batchOf(t, spec{base: 1, recs: []rec{{key: "b", value: "1", ms: 40}}})}
	want := "[0-0 until 9223372036854775807 0@31 a=][1-1 1@40 b=1]"
	for now := int64(100); now < 300; now += 100 {
		log, _, _ = cleaning{now: now, keep: math.MaxInt64}.run(t, log)
		if got := text(t, log); got != want {
			t.Errorf("at %d: %s, want %s", now, got, want)
		}
	}
}

// TestFilterKeepsProducersAndEnds: an active producer's last batch and the one at the end stay as headers.
func TestFilterKeepsProducersAndEnds(t *testing.T) {
	log := [][]byte{
		batchOf(t, spec{base: 0, pid: 7, seq: 0, recs: []rec{{key: "a", value: "1", ms: 10}}}),
		batchOf(t, spec{base: 1, pid: 7, seq: 1, codec: segment.CompressionZstd, recs: []rec{{key: "a", value: "2", ms: 10}, {key: "a", value: "3", ms: 10}}}),
		batchOf(t, spec{base: 3, pid: 8, seq: 0, recs: []rec{{key: "a", value: "4", ms: 10}}}),
		batchOf(t, spec{base: 4, recs: []rec{{key: "b", value: "5", ms: 10}}}),
		batchOf(t, spec{base: 5, recs: []rec{{key: "a", value: "6", ms: 10}}}),
	}
	known := map[int64]compaction.Producer{7: {Epoch: 0, LastOffset: 2}, 8: {Epoch: 0, LastOffset: 99}}
	out, _, stats := cleaning{end: 4, producers: known}.run(t, log)
	if got, want := text(t, out), "[1-2][3-3][4-4 4@10 b=5][5-5 5@10 a=6]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if h := header(t, out[0]); h.ProducerID != 7 || h.BaseSequence != 1 || h.LastSequence() != 2 || h.Compression() != segment.CompressionNone || h.SizeBytes() != segment.BatchHeaderSize {
		t.Errorf("empty batch %+v", h)
	}
	if stats.RecordsRead != 6 || stats.RecordsKept != 2 || stats.BatchesKept != 4 {
		t.Errorf("counted %+v", stats)
	}
	if out, _, _ = (cleaning{}).run(t, out); text(t, out) != "[4-4 4@10 b=5][5-5 5@10 a=6]" {
		t.Errorf("once the producers are forgotten: %s", text(t, out))
	}
}

// TestFilterTransactions: aborted data goes at once; a marker when nothing of its transaction is left, and its term is over.
func TestFilterTransactions(t *testing.T) {
	log := [][]byte{
		batchOf(t, spec{base: 0, recs: []rec{{key: "a", value: "old", ms: 1}, {key: "b", value: "old", ms: 1}}}),
		batchOf(t, spec{base: 2, pid: 5, attrs: transactional, recs: []rec{{key: "a", value: "aborted", ms: 2}}}),
		batchOf(t, spec{base: 3, pid: 6, attrs: transactional, recs: []rec{{key: "b", value: "committed", ms: 3}}}),
		marker(t, 4, 5, false, 4),
		marker(t, 5, 6, true, 5),
		batchOf(t, spec{base: 6, pid: 5, attrs: transactional, seq: 1, recs: []rec{{key: "c", value: "committed", ms: 6}}}),
		marker(t, 7, 5, true, 7),
		batchOf(t, spec{base: 8, recs: []rec{{key: "c", value: "last", ms: 8}}}),
	}
	aborted := []segment.AbortedTxn{{ProducerID: 5, First: 2, Last: 4}}
	for _, step := range []struct {
		now  int64
		want string
	}{
		// The batches are read for the first time: every marker still has one before it.
		{100, "[0-1 0@1 a=old][3-3 3@3 b=committed][4-4 marker][5-5 marker][7-7 marker][8-8 8@8 c=last]"},
		// Of 5's transactions nothing is left: their markers get their term.
		{200, "[0-1 0@1 a=old][3-3 3@3 b=committed][4-4 until 250 marker][5-5 marker][7-7 until 250 marker][8-8 8@8 c=last]"},
		{249, "[0-1 0@1 a=old][3-3 3@3 b=committed][4-4 until 250 marker][5-5 marker][7-7 until 250 marker][8-8 8@8 c=last]"},
		{250, "[0-1 0@1 a=old][3-3 3@3 b=committed][5-5 marker][8-8 8@8 c=last]"},
	} {
		log, _, _ = cleaning{now: step.now, keep: 50, aborted: aborted}.run(t, log)
		if got := text(t, log); got != step.want {
			t.Fatalf("at %d:\n%s, want\n%s", step.now, got, step.want)
		}
		if step.now == 200 {
			aborted = nil // the index entry goes with the data
		}
	}
}

// TestFilterUnreadable: a batch whose records cannot be read stays.
func TestFilterUnreadable(t *testing.T) {
	_, b := build(t, spec{base: 0, codec: segment.CompressionZstd, recs: []rec{{key: "a", value: "1", ms: 1}}})
	b[63] ^= 0xff // of zstd's magic
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	log := [][]byte{b, batchOf(t, spec{base: 1, recs: []rec{{key: "a", value: "2", ms: 1}}})}
	out, _, stats := cleaning{}.run(t, log)
	if len(out) != 2 || !bytes.Equal(out[0], b) || stats.Malformed != 1 {
		t.Errorf("%d batches, %+v", len(out), stats)
	}
}

// TestCleaningAgainstModel: whatever the log, codecs, map size and times, the newest value of each key stays, and nothing that is newer
// than what the map knows is lost.
func TestCleaningAgainstModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		var log [][]byte
		newest := map[string]segment.Offset{}
		values := map[segment.Offset]string{}
		next := segment.Offset(rng.IntN(5))
		for range 1 + rng.IntN(60) {
			s := spec{base: next, codec: segment.Compression(rng.IntN(5))}
			for range 1 + rng.IntN(8) {
				r := rec{key: fmt.Sprint(rng.IntN(40)), value: fmt.Sprint(rng.Uint64()), ms: rng.Int64N(1000)}
				if rng.IntN(5) == 0 {
					r.value = ""
				}
				newest[r.key], values[next] = next, r.value
				s.recs = append(s.recs, r)
				next++
			}
			log = append(log, batchOf(t, s))
			next += segment.Offset(rng.IntN(3)) // gaps of earlier cleanings
		}
		cleaned, now, horizon := segment.Offset(0), int64(1000), int64(500)
		for pass := 0; cleaned < next && pass < 100; pass++ {
			c := cleaning{now: now, keep: horizon, from: cleaned, mapBytes: 1536 * (1 + rng.Int64N(3))}
			var to segment.Offset
			log, to, _ = c.run(t, log)
			if to <= cleaned {
				break
			}
			cleaned = to
			now += 300
		}
		got := map[string]segment.Offset{}
		for _, b := range log {
			if err := records.Each(header(t, b), b, func(r records.Record) bool {
				if string(r.Value) != values[r.Offset] || (r.Value == nil) != (values[r.Offset] == "") {
					t.Errorf("seed %d: offset %d holds %q, want %q", seed, r.Offset, r.Value, values[r.Offset])
				}
				if at, twice := got[string(r.Key)]; twice {
					t.Errorf("seed %d: key %s at %d and at %d, cleaned to %d", seed, r.Key, at, r.Offset, cleaned)
				}
				got[string(r.Key)] = r.Offset
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		for key, off := range newest {
			at, ok := got[key]
			if values[off] != "" && (!ok || at != off) {
				t.Errorf("seed %d: key %s should be at %d: %d %t", seed, key, off, at, ok)
			}
			if ok && at != off {
				t.Errorf("seed %d: key %s is at %d, not at %d", seed, key, at, off)
			}
		}
	}
}

// TestOffsetMap: what fits is found, what was never put is not, and the bound holds.
func TestOffsetMap(t *testing.T) {
	m := newOffsetMap(1<<20, 1<<40)
	if m.Bytes() > 1<<20 || m.Bytes() < 1<<19 {
		t.Fatalf("%d bytes", m.Bytes())
	}
	n := 0
	for m.Put(fmt.Appendf(nil, "key %d", n), segment.Offset(n)) {
		n++
	}
	if n != m.Len() || n < 20000 {
		t.Errorf("%d keys in %d bytes", n, m.Bytes())
	}
	if !m.Put([]byte("key 0"), 1<<40) || m.Newest([]byte("key 0")) != 1<<40 {
		t.Error("a key that is there cannot be renewed when the map is full")
	}
	for i := 1; i < n; i++ {
		if got := m.Newest(fmt.Appendf(nil, "key %d", i)); got != segment.Offset(i) {
			t.Fatalf("key %d is at %d", i, got)
		}
		if got := m.Newest(fmt.Appendf(nil, "other %d", i)); got != -1 {
			t.Fatalf("a key that was never put is at %d", got)
		}
	}
	if small := newOffsetMap(64<<20, 100); small.Bytes() > 8<<10 {
		t.Errorf("%d bytes for 100 keys", small.Bytes())
	}
}

// BenchmarkClean is one pass, both readings of it, over 1 KiB records: half of them stay.
func BenchmarkClean(b *testing.B) {
	for codec := segment.CompressionNone; codec <= segment.CompressionZstd; codec++ {
		b.Run(fmt.Sprint("codec=", codec), func(b *testing.B) { benchmarkClean(b, codec) })
	}
}

func benchmarkClean(b *testing.B, codec segment.Compression) {
	rng := rand.New(rand.NewPCG(1, 1))
	var log [][]byte
	bytesIn, n := 0, 0
	for base := segment.Offset(0); bytesIn < 32<<20; base += 16 {
		s := spec{base: base, codec: codec}
		for range 16 {
			value := make([]byte, 1000)
			for i := 0; i < len(value); i += 4 {
				copy(value[i:], fmt.Sprintf("%04x", rng.IntN(1<<12)))
			}
			s.recs = append(s.recs, rec{key: fmt.Sprint("key-", rng.IntN(20000)), value: string(value)})
			n++
			bytesIn += 1024
		}
		log = append(log, batchOf(b, s))
	}
	b.SetBytes(int64(bytesIn))
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		m := newOffsetMap(40<<20, int64(n))
		mapping := compaction.Mapper{Map: m, Txns: compaction.NewTransactions()}
		for _, p := range log {
			if _, err := mapping.Add(header(b, p), p); err != nil {
				b.Fatal(err)
			}
		}
		f := compaction.Filter{Map: m, Txns: compaction.NewTransactions()}
		for _, p := range log {
			if _, _, err := f.Next(header(b, p), p, 0); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(f.Stats.BytesKept)/float64(f.Stats.RecordsKept), "bytes/kept")
	}
	b.ReportMetric(float64(bytesIn)/1e6*float64(b.N)/(cpuTime(b)-cpu).Seconds(), "MB/cpu-s")
}

// cpuTime is the processor time of this process: it means something on a machine that does other things as well.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func newOffsetMap(maxBytes, keys int64) *compaction.OffsetMap {
	return compaction.NewOffsetMap(make([]byte, compaction.OffsetMapBytes(maxBytes, keys)))
}

// TestManyAbortedTransactions: as many as clients make in a segment are taken in at once, and known ones once.
func TestManyAbortedTransactions(t *testing.T) {
	const n = 300_000 // of 16 million that a gibibyte has room for
	list := make([]segment.AbortedTxn, n)
	for i := range list {
		list[i] = segment.AbortedTxn{ProducerID: int64(i % 1000), First: segment.Offset(2 * i), Last: segment.Offset(2*i + 1)}
	}
	txns, began := compaction.NewTransactions(), time.Now()
	for from := 0; from < n; from += n / 3 {
		txns.Expect(list[:from+n/3])
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%v for %d transactions", took, n)
	}
	for i := range list {
		h := segment.BatchHeader{ProducerID: list[i].ProducerID, BaseOffset: list[i].First, Attributes: 0x10, Count: 1}
		if !txns.Data(h) {
			t.Fatalf("transaction %d is not taken for aborted", i)
		}
		marker := segment.AppendMarker(nil, h.ProducerID, 0, segment.Marker{}, 1)
		segment.AssignOffsets(marker, list[i].Last, 0)
		if done, err := txns.Marker(header(t, marker), marker); done || err != nil {
			t.Fatalf("marker %d: %t, %v", i, done, err)
		}
	}
	if kept := txns.Kept(); len(kept) != n {
		t.Errorf("%d transactions of %d are kept", len(kept), n)
	}
}
