package partition_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lagoon/admission"
	"lagoon/internal/partition"
	"lagoon/internal/records"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

// compacted is a topic whose logs are cleaned at every chance.
func compacted() partition.Config {
	cfg := config()
	cfg.Compact, cfg.Delete = true, false
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 3000, 400
	cfg.MaxCompactionLagMs, cfg.DeleteRetentionMs = 1<<63-1, 1000
	return cfg
}

// quietCompaction leaves compaction to the test.
func quietCompaction(o *partition.Options) { o.CompactionInterval = -1 }

// keyed is the truth about a compacted log: the newest value of each key, and what was written at each offset.
type keyed struct {
	t       testing.TB
	codecs  int // 4: without zstd, whose pooled decoder cannot leave a synctest bubble
	rng     *rand.Rand
	at      map[string]segment.Offset // acked
	content map[segment.Offset][2]string
	end     segment.Offset
	unsure  map[string]segment.Offset // sent and not acked
}

func newKeyed(t testing.TB, seed uint64) *keyed {
	return &keyed{t: t, codecs: 5, rng: rand.New(rand.NewPCG(seed, 7)), at: map[string]segment.Offset{}, content: map[segment.Offset][2]string{}, unsure: map[string]segment.Offset{}}
}

// write appends a batch of a few records and waits until it is durable.
func (k *keyed) write(l *partition.Log, nowMs int64) error {
	var b records.Builder
	var keys, values []string
	for range 1 + k.rng.IntN(6) {
		key, value := fmt.Sprint("key-", k.rng.IntN(25)), strings.Repeat(fmt.Sprint(k.rng.Uint64()), 1+k.rng.IntN(8))
		if k.rng.IntN(6) == 0 {
			value = ""
			b.Add([]byte(key), nil)
		} else {
			b.Add([]byte(key), []byte(value))
		}
		keys, values = append(keys, key), append(values, value)
	}
	next := k.end
	for i, key := range keys {
		k.content[next+segment.Offset(i)] = [2]string{key, values[i]}
		k.unsure[key] = next + segment.Offset(i)
	}
	a, err := l.Append(context.Background(), partition.AppendRequest{Records: repack(k.t, b.Batch(nowMs), segment.Compression(k.rng.IntN(k.codecs)))})
	if err != nil {
		return err
	}
	if a.Base != next {
		return fmt.Errorf("appended at %d, expected %d", a.Base, next)
	}
	if err := l.Durable(context.Background(), a.Next); err != nil {
		return err
	}
	clear(k.unsure)
	for i, key := range keys {
		k.at[key] = a.Base + segment.Offset(i)
	}
	k.end = a.Next
	return nil
}

// resume takes over where a log ends after a crash.
func (k *keyed) resume(l *partition.Log) {
	end := l.Offsets().End
	for key, at := range k.unsure {
		if at < end {
			k.at[key] = max(k.at[key], at)
		}
	}
	clear(k.unsure)
	k.end = end
}

// check reads the log and compares: nothing is false, nothing is missing, and below cleaned every key is there once.
func (k *keyed) check(l *partition.Log, cleaned segment.Offset) error {
	seen, last := map[string]segment.Offset{}, segment.Offset(-1)
	var errs []error
	note := func(h segment.BatchHeader, batch []byte) {
		if err := records.Each(h, batch, func(r records.Record) bool {
			key := string(r.Key)
			if got := [2]string{key, string(r.Value)}; got != k.content[r.Offset] {
				errs = append(errs, fmt.Errorf("offset %d holds %q, want %q", r.Offset, got, k.content[r.Offset]))
			}
			if before, twice := seen[key]; twice && r.Offset < cleaned {
				errs = append(errs, fmt.Errorf("%s at %d and at %d, cleaned up to %d", key, before, r.Offset, cleaned))
			}
			if r.Offset <= last {
				errs = append(errs, fmt.Errorf("offset %d after %d", r.Offset, last))
			}
			seen[key], last = r.Offset, r.Offset
			return true
		}); err != nil {
			errs = append(errs, err)
		}
	}
	if err := readThrough(l, note); err != nil {
		return err
	}
	for key, at := range k.at {
		got, there := seen[key]
		if at < l.Offsets().LogStart || k.content[at][1] == "" && !there {
			continue
		}
		if !there || got < at {
			errs = append(errs, fmt.Errorf("%s is at %d (%t), want %d, cleaned up to %d", key, got, there, at, cleaned))
		}
	}
	return errors.Join(errs...)
}

// readThrough reads a log from its start as a consumer does, over gaps.
func readThrough(l *partition.Log, fn func(h segment.BatchHeader, batch []byte)) error {
	from := l.Offsets().LogStart
	for {
		w := partition.NewWatch()
		res, err := l.Read(partition.ReadRequest{Reader: partition.ReaderRef{ClientID: "reader"}, From: from, MaxBytes: 2000, MustServe: true, Watch: w})
		if err != nil {
			return fmt.Errorf("read at %d: %w", from, err)
		}
		if from >= res.Offsets.HighWatermark {
			w.Close()
			return nil
		}
		if res.Chunk == nil {
			if !res.Pending {
				return fmt.Errorf("read at %d of %d: nothing", from, res.Offsets.HighWatermark)
			}
			<-w.C()
			w.Close()
			continue
		}
		w.Close()
		p := make([]byte, res.Chunk.Len())
		if _, err := res.Chunk.ReadAt(p, 0); err != nil {
			return err
		}
		res.Chunk.Release()
		for len(p) > 0 {
			h, err := segment.DecodeHeader(p)
			if err != nil {
				return fmt.Errorf("read at %d: %w", from, err)
			}
			if h.LastOffset() >= from {
				fn(h, p[:h.SizeBytes()])
				from = h.NextOffset()
			}
			p = p[h.SizeBytes():]
		}
	}
}

func cleanedTo(s *partition.Store) (segment.Offset, error) {
	v := s.Compactions()
	if len(v) != 1 {
		return 0, fmt.Errorf("%d compacted partitions", len(v))
	}
	return v[0].Work.From, v[0].Last.Err
}

// TestCompact cleans a log again and again while it grows: the view of the keys stays, the log stays small, segments are put together,
// and a start finds the same.
func TestCompact(t *testing.T) {
	fsys := osFS(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := newKeyed(t, seed)
	cfg := compacted()
	s := open(t, quietCompaction, fsys)
	l := load(t, s, cfg, 1)
	for round := range 8 {
		for range 60 {
			if err := k.write(l, time.Now().UnixMilli()); err != nil {
				t.Fatal(err)
			}
		}
		s.Compact(context.Background())
		cleaned, err := cleanedTo(s)
		if err != nil || cleaned == 0 {
			t.Fatalf("round %d: cleaned to %d, %v", round, cleaned, err)
		}
		if err := k.check(l, cleaned); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if n := len(l.Segments()); n > 12 {
			t.Errorf("round %d: %d segments of %d bytes", round, n, l.SizeBytes())
		}
		if round == 3 {
			closeStore(t, s)
			s = open(t, quietCompaction, fsys)
			l = load(t, s, cfg, 1)
			if again, _ := cleanedTo(s); again != cleaned {
				t.Errorf("cleaned up to %d, after a start %d", cleaned, again)
			}
		}
		if round == 5 { // as kill -9
			s.Abandon()
			s = open(t, quietCompaction, fsys)
			l = load(t, s, cfg, 1)
		}
	}
	listing, err := segment.ListDir(fsys, "orders-0")
	if err != nil || len(listing.Leftovers)+len(listing.OrphanIndexes) > 0 {
		t.Errorf("left behind: %+v, %v", listing, err)
	}
	if points, err := segment.ReadCheckpoint(fsys, segment.CleanerFile); err != nil || points[segment.TopicPartition{Topic: "orders"}] == 0 {
		t.Errorf("cleaner checkpoint %v, %v", points, err)
	}
	closeStore(t, s)
}

// TestCompactUnderReader: a reader in the middle of the log, cold or hot, goes on where it was, over a swap.
func TestCompactUnderReader(t *testing.T) {
	s := open(t, quietCompaction, osFS(t))
	l := load(t, s, compacted(), 1)
	k := newKeyed(t, 1)
	for range 150 {
		if err := k.write(l, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
	}
	last := segment.Offset(-1)
	n := 0
	newest := map[string]segment.Offset{}
	if err := readThrough(l, func(h segment.BatchHeader, batch []byte) {
		if n++; n == 10 || n == 40 {
			s.Compact(context.Background())
		}
		if err := records.Each(h, batch, func(r records.Record) bool {
			if r.Offset <= last || k.content[r.Offset] != [2]string{string(r.Key), string(r.Value)} {
				t.Errorf("offset %d after %d: %s=%s", r.Offset, last, r.Key, r.Value)
			}
			last, newest[string(r.Key)] = r.Offset, r.Offset
			return true
		}); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for key, at := range k.at {
		if k.content[at][1] != "" && newest[key] != at {
			t.Errorf("%s was read at %d, is at %d", key, newest[key], at)
		}
	}
	closeStore(t, s)
}

// compactStory writes and cleans; a retention by size takes part of it.
func compactStory(s *partition.Store, l *partition.Log, k *keyed) error {
	for round := range 3 {
		for range 14 {
			if err := k.write(l, s.Now().UnixMilli()); err != nil {
				return err
			}
		}
		s.Compact(context.Background())
		if _, err := cleanedTo(s); err != nil {
			return err
		}
		time.Sleep(2 * time.Second) // terms of delete markers end
		if round == 1 {
			s.Retain(s.Now())
		}
	}
	return nil
}

// TestCompactCutAnywhere cuts the power, or ends the process, at every change of the story: the view of the keys is what was acked.
func TestCompactCutAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := compacted()
		start := func(m vfs.FS) (*partition.Store, *partition.Log, error) {
			s, err := tryOpen(t, func(o *partition.Options) { o.CompactionInterval, o.RetentionInterval = -1, 1000*time.Hour }, m)
			if err != nil {
				return nil, nil, err
			}
			if err := s.Load(context.Background(), []partition.TopicSpec{{Topic: "orders", ID: topicID, Partitions: 1, Config: cfg}}); err != nil {
				return s, nil, err
			}
			l, _ := s.Log("orders", 0)
			return s, l, l.Err()
		}
		run := func(m vfs.FS) (*keyed, error) {
			k := newKeyed(t, 3)
			k.codecs = 4
			s, l, err := start(m)
			if err == nil {
				err = compactStory(s, l, k)
			}
			if s != nil {
				s.Abandon()
			}
			return k, err
		}
		count := &vfs.PowerCut{}
		if _, err := run(vfs.WithFaults(vfs.NewMem(1), count)); err != nil {
			t.Fatal(err)
		}
		points, step := count.Points(), int64(1)
		if !exhaustive {
			step = max(1, points/100)
		}
		cases, swaps := 0, 0
		for after := step; after < points; after += step {
			m := vfs.NewMem(uint64(after))
			cut := &vfs.PowerCut{After: after}
			k, err := run(vfs.WithFaults(m, cut))
			if !cut.Cut() {
				break // background loops make a few changes more or less
			}
			if err == nil {
				t.Fatalf("no error at cut %d of %d", after, points)
			}
			for seed := range uint64(3) {
				var left *vfs.Mem
				if seed == 0 {
					left = m.Kill()
				} else {
					left = m.Crash(vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true})
				}
				cases++
				if entries, err := left.List("orders-0"); err == nil && slices.ContainsFunc(entries, func(e vfs.Entry) bool { return strings.HasSuffix(e.Name, ".log"+segment.SwapSuffix) }) {
					swaps++
				}
				k := k.clone()
				what := fmt.Sprintf("cut after %d of %d, future %d", after, points, seed)
				s, l, err := start(left)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				k.resume(l)
				cleaned, _ := cleanedTo(s)
				if err := k.check(l, min(cleaned, l.Offsets().End)); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				for range 5 {
					if err := k.write(l, s.Now().UnixMilli()); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
				}
				s.Compact(context.Background())
				cleaned, err = cleanedTo(s)
				if err := errors.Join(err, k.check(l, cleaned)); err != nil {
					t.Fatalf("%s, compacted: %v", what, err)
				}
				s.Abandon()
			}
		}
		if swaps == 0 {
			t.Error("no case had a swap to finish: the test looks at nothing")
		}
		t.Logf("%d points, every %d: %d futures, %d with a swap to finish", points, step, cases, swaps)
	})
}

func (k *keyed) clone() *keyed {
	c := newKeyed(k.t, uint64(k.end))
	c.end, c.codecs = k.end, k.codecs
	for key, at := range k.at {
		c.at[key] = at
	}
	for key, at := range k.unsure {
		c.unsure[key] = at
	}
	for at, content := range k.content {
		c.content[at] = content
	}
	return c
}

// TestCompactedTopicWantsKeys: also in compressed batches, and what cannot be read is refused.
func TestCompactedTopicWantsKeys(t *testing.T) {
	s := open(t, nil, osFS(t))
	l := load(t, s, compacted(), 1)
	for codec := segment.CompressionNone; codec <= segment.CompressionZstd; codec++ {
		var b records.Builder
		b.Add([]byte("a"), []byte("1"))
		b.Add(nil, []byte("2"))
		_, err := l.Append(context.Background(), partition.AppendRequest{Records: repack(t, b.Batch(1), codec)})
		refused, ok := errors.AsType[*segment.RecordsError](err)
		if !ok || !errors.Is(err, segment.ErrInvalidRecord) || !slices.Equal(refused.Indexes, []int32{1}) {
			t.Errorf("codec %d: %v", codec, err)
		}
		b.Reset()
		b.Add([]byte("a"), []byte("1"))
		whole := repack(t, b.Batch(1), codec)
		if _, err := l.Append(context.Background(), partition.AppendRequest{Records: bytes.Clone(whole)}); err != nil {
			t.Errorf("codec %d with keys: %v", codec, err)
		}
		if codec == segment.CompressionNone {
			continue
		}
		whole[62] ^= 0x55
		binary.BigEndian.PutUint32(whole[17:], crc32.Checksum(whole[21:], castagnoli))
		if _, err := l.Append(context.Background(), partition.AppendRequest{Records: whole}); !errors.Is(err, segment.ErrInvalidRecord) {
			t.Errorf("codec %d, malformed: %v", codec, err)
		}
	}
	closeStore(t, s)
}

// repack compresses a plain batch.
func repack(t testing.TB, plain []byte, codec segment.Compression) []byte {
	t.Helper()
	b, err := packed(plain, codec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func packed(plain []byte, codec segment.Compression) ([]byte, error) {
	var p records.Packer
	out := bytes.NewBuffer(bytes.Clone(plain[:segment.BatchHeaderSize]))
	w, err := p.To(codec, out)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(plain[segment.BatchHeaderSize:])
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	b := out.Bytes()
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[22] = b[22]&^7 | byte(codec)
	return withCRC(b), nil
}

// TestCompactLargeBatches: batches that are written one by one as they come, so that nothing is left to write at a segment's end.
func TestCompactLargeBatches(t *testing.T) {
	s := open(t, quietCompaction, osFS(t))
	cfg := compacted()
	cfg.SegmentBytes, cfg.MaxMessageBytes = 3<<20, 4<<20
	l := load(t, s, cfg, 1)
	rng, newest := rand.New(rand.NewPCG(3, 3)), map[string]segment.Offset{}
	end := segment.Offset(0)
	for range 6 {
		var b records.Builder
		for i := range 2600 {
			key := fmt.Sprint("key-", rng.IntN(20000))
			b.Add([]byte(key), bytes.Repeat([]byte{byte(i)}, 1000))
			newest[key] = end + segment.Offset(i)
		}
		a, err := l.Append(t.Context(), partition.AppendRequest{Records: b.Batch(1)})
		if err != nil {
			t.Fatal(err)
		}
		end = a.Next
	}
	if err := l.Durable(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	s.Compact(t.Context())
	v := s.Compactions()[0].Last
	if v.Err != nil || v.Kept == 0 || v.Kept >= v.Records {
		t.Fatalf("%+v", v)
	}
	if err := readThrough(l, func(h segment.BatchHeader, batch []byte) {
		if err := records.Each(h, batch, func(r records.Record) bool {
			if r.Offset == newest[string(r.Key)] {
				delete(newest, string(r.Key))
			}
			return true
		}); err != nil {
			t.Error(err)
		}
	}); err != nil || len(newest) > 0 {
		t.Errorf("the newest records of %d keys are gone, %v", len(newest), err)
	}
}

// TestCompactionStopsAtDamage: a damaged log is left as it is, and the error says where; another log goes on.
func TestCompactionStopsAtDamage(t *testing.T) {
	fsys := osFS(t)
	s := open(t, quietCompaction, fsys)
	l := load(t, s, compacted(), 2)
	other, _ := s.Log("orders", 1)
	k, k2 := newKeyed(t, 5), newKeyed(t, 6)
	for range 80 {
		if err := errors.Join(k.write(l, time.Now().UnixMilli()), k2.write(other, time.Now().UnixMilli())); err != nil {
			t.Fatal(err)
		}
	}
	segs := l.Segments()
	before := len(segs)
	f, err := fsys.Open(segs[1].File, vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xde, 0xad}, segs[1].SizeBytes/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.Compact(context.Background())
	for _, v := range s.Compactions() {
		_, corrupt := errors.AsType[*segment.CorruptError](v.Last.Err)
		if damaged := v.Work.Partition == 0; corrupt != damaged || (v.Work.From > 0) == damaged {
			t.Errorf("partition %d: cleaned to %d, %v", v.Work.Partition, v.Work.From, v.Last.Err)
		} else if !damaged {
			if err := k2.check(other, v.Work.From); err != nil {
				t.Error(err)
			}
		}
	}
	if n := len(l.Segments()); n != before {
		t.Errorf("%d segments of %d are left of a damaged log", n, before)
	}
	closeStore(t, s)
}

// TestCompactAcrossTiers: what lies in a cold tier is compacted there, and what is on its way is waited for.
func TestCompactAcrossTiers(t *testing.T) {
	hot, cold := osFS(t), osFS(t)
	s := open(t, func(o *partition.Options) { o.CompactionInterval, o.PlanInterval = -1, 50*time.Millisecond }, hot, cold)
	cfg := compacted()
	cfg.LocalRetentionBytes = 4000
	l := load(t, s, cfg, 1)
	k := newKeyed(t, 9)
	for round := range 4 {
		for range 80 {
			if err := k.write(l, time.Now().UnixMilli()); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "the first segment to move", func() bool { return s.MoveTotals().Segments > 0 })
		s.Compact(context.Background())
		cleaned, err := cleanedTo(s)
		if err := errors.Join(err, k.check(l, cleaned)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	closeStore(t, s)
	for _, fsys := range []vfs.FS{hot, cold} {
		if listing, err := segment.ListDir(fsys, "orders-0"); err != nil || len(listing.Segments) == 0 {
			t.Errorf("%+v, %v", listing, err)
		}
	}
	s = open(t, quietCompaction, hot, cold)
	l = load(t, s, cfg, 1)
	cleaned, err := cleanedTo(s)
	if err := errors.Join(err, k.check(l, cleaned)); err != nil {
		t.Fatalf("after a start: %v", err)
	}
	closeStore(t, s)
}

// TestCompactTransactions: of a log with committed, aborted and open transactions a reader of committed records sees the newest committed
// record of each key, before and after compaction and a start; aborted records are gone, and nothing above an open transaction is touched.
func TestCompactTransactions(t *testing.T) {
	fsys := osFS(t)
	s := open(t, quietCompaction, fsys)
	l := load(t, s, compacted(), 1)
	rng := rand.New(rand.NewPCG(4, 4))
	keys := map[segment.Offset]string{}   // of every record written
	newest := map[string]segment.Offset{} // committed
	aborted := map[segment.Offset]bool{}
	seqs := map[int64]int32{}
	one := func(pid int64) (string, []byte) {
		key := fmt.Sprint("key-", rng.IntN(30))
		var b records.Builder
		b.Add([]byte(key), []byte(strings.Repeat(fmt.Sprint(rng.Uint64()), 3)))
		batch := bytes.Clone(b.Batch(s.Now().UnixMilli()))
		if pid > 0 {
			byProducer(batch, producer{id: pid, seq: seqs[pid]})
			seqs[pid]++
		}
		return key, batch
	}
	for range 120 {
		for range rng.IntN(3) {
			key, b := one(0)
			a := produce(t, l, withCRC(b))
			keys[a.Base], newest[key] = key, a.Base
		}
		pid, commit := int64(100+rng.IntN(3)), rng.IntN(3) > 0
		for range 1 + rng.IntN(4) {
			key, b := one(pid)
			a := write(t, l, b, pid)
			if keys[a.Base] = key; commit {
				newest[key] = a.Base
			} else {
				aborted[a.Base] = true
			}
		}
		end(t, l, pid, commit)
	}
	_, b := one(200)
	open200 := write(t, l, b, 200).Base // stays open for now
	later := map[string]segment.Offset{}
	for range 60 {
		key, b := one(0)
		a := produce(t, l, withCRC(b))
		keys[a.Base], later[key] = key, a.Base
	}
	check := func(when string) {
		t.Helper()
		there := map[segment.Offset]bool{}
		if err := readThrough(l, func(h segment.BatchHeader, _ []byte) { there[h.BaseOffset] = h.Count > 0 && !h.IsControl() }); err != nil {
			t.Fatal(err)
		}
		view, count := map[string]segment.Offset{}, 0
		for _, off := range committed(t, l, 0, 1500) {
			if there[off] {
				view[keys[off]] = off
				count++
			}
		}
		for key, at := range newest {
			if view[key] != at {
				t.Errorf("%s: %s is at %d, want %d", when, key, view[key], at)
			}
		}
		if when == "before" {
			return
		}
		left := 0
		cleaned, err := cleanedTo(s)
		if err != nil {
			t.Fatal(err)
		}
		for off := range aborted { // the segment in which the open transaction begins is not touched
			if there[off] && off < cleaned {
				left++
			}
		}
		if left > 0 || count > 2*len(newest) {
			t.Errorf("%s: %d aborted records are left below %d; %d committed ones of %d keys", when, left, cleaned, count, len(newest))
		}
		for off := open200; off < l.Offsets().End; off++ {
			if !there[off] {
				t.Errorf("%s: offset %d above the open transaction at %d is gone", when, off, open200)
			}
		}
	}
	check("before")
	for round := range 2 {
		s.Compact(context.Background())
		if cleaned, err := cleanedTo(s); err != nil || cleaned > open200 || cleaned < open200/2 {
			t.Fatalf("cleaned to %d of %d, %v", cleaned, open200, err)
		}
		check(fmt.Sprint("round ", round))
		if round == 0 {
			s.Abandon()
			s = open(t, quietCompaction, fsys)
			l = load(t, s, compacted(), 1)
			check("after a kill")
			end(t, l, 200, false)
			aborted[open200] = true
			maps.Copy(newest, later)
			for range 60 {
				key, b := one(0)
				a := produce(t, l, withCRC(b))
				keys[a.Base], newest[key] = key, a.Base
			}
			open200 = l.Segments()[len(l.Segments())-1].Base // the active segment is not touched either
		}
	}
	closeStore(t, s)
}

func withCRC(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// TestDistancesAfterCompaction: how far behind a reader is in bytes does not count what compaction took away: it is what a start finds.
func TestDistancesAfterCompaction(t *testing.T) {
	fsys := osFS(t)
	s := open(t, quietCompaction, fsys)
	l := load(t, s, compacted(), 1)
	k := newKeyed(t, 11)
	distances := func() (out []int64) {
		for off := segment.Offset(0); off < k.end; off += 7 {
			e, err := l.Explain(admission.ReaderKey{}, off, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if lag := l.LagOf(off); lag.Bytes != e.Behind {
				t.Errorf("offset %d of %d: %d bytes behind, of the segments' sizes %d", off, k.end, e.Behind, lag.Bytes)
			}
			out = append(out, e.Behind)
		}
		return out
	}
	for range 3 {
		before := l.SizeBytes()
		for range 60 {
			if err := k.write(l, time.Now().UnixMilli()); err != nil {
				t.Fatal(err)
			}
		}
		whole := distances()[0]
		s.Compact(context.Background())
		if now := distances()[0]; now != l.SizeBytes() || now > whole*3/4 {
			t.Errorf("the first record is %d bytes behind, before compaction %d; the log has %d, before the writes %d", now, whole, l.SizeBytes(), before)
		}
	}
	running := distances()
	closeStore(t, s)
	s = open(t, quietCompaction, fsys)
	l = load(t, s, compacted(), 1)
	if started := distances(); !slices.Equal(started, running) {
		t.Errorf("distances were %v, after a start %v", running, started)
	}
	closeStore(t, s)
}

// abandonFailed stops what a failed test has left running: a bubble waits for it.
func abandonFailed(t *testing.T, s *partition.Store) {
	if t.Failed() {
		s.Abandon()
	}
}

// TestReadAfterCompactionUpToTheEnd: a log that was rolled because max.compaction.lag.ms was over, and to which nothing was appended since, is
// compacted to its end; readers find the end of the smaller segment, wherever they begin.
func TestReadAfterCompactionUpToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, quietCompaction, osFS(t))
		defer abandonFailed(t, s)
		cfg := compacted()
		cfg.SegmentBytes, cfg.MaxCompactionLagMs = 1<<20, 60_000
		l := load(t, s, cfg, 1)
		k := newKeyed(t, 31)
		k.codecs = 4
		for range 200 {
			noErr(t, k.write(l, time.Now().UnixMilli()))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		before := l.SizeBytes()
		s.Compact(context.Background())
		cleaned, err := cleanedTo(s)
		if err != nil || cleaned != k.end || l.SizeBytes() > before/2 {
			t.Fatalf("cleaned up to %d of %d, %d bytes of %d, %v", cleaned, k.end, l.SizeBytes(), before, err)
		}
		noErr(t, k.check(l, cleaned))
		for from := segment.Offset(0); from < k.end; from += 97 {
			w := partition.NewWatch()
			ref := partition.ReaderRef{ClientID: fmt.Sprint("from ", from)}
			for at := from; at < k.end; {
				res, err := l.Read(partition.ReadRequest{Reader: ref, From: at, MaxBytes: 1 << 20, MustServe: true, Watch: w})
				if err != nil {
					t.Fatalf("read at %d of %d: %v", at, k.end, err)
				}
				if res.Chunk == nil {
					<-w.C()
					continue
				}
				if at = res.Chunk.Next(); at == 0 {
					at = k.end
				}
				res.Chunk.Release()
			}
			w.Close()
		}
		for _, d := range s.Dirs() {
			if d.UsedBytes != l.SizeBytes() {
				t.Errorf("%d bytes used by %d", d.UsedBytes, l.SizeBytes())
			}
		}
		closeStore(t, s)
	})
}

// TestOldRecordsDoNotRollForMaxCompactionLag: records that are older than max.compaction.lag.ms when they come, as those of a backfill are, do not make a
// segment of each second.
func TestOldRecordsDoNotRollForMaxCompactionLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, quietCompaction, osFS(t))
		defer abandonFailed(t, s)
		cfg := compacted()
		cfg.SegmentBytes, cfg.MaxCompactionLagMs = 1<<20, time.Hour.Milliseconds()
		l := load(t, s, cfg, 1)
		k := newKeyed(t, 31)
		k.codecs = 4
		old := time.Now().Add(-1000 * time.Hour)
		for range 120 {
			noErr(t, k.write(l, old.UnixMilli()))
			time.Sleep(time.Second)
		}
		if n := len(l.Segments()); n > 2 {
			t.Errorf("%d segments of %d bytes after two minutes", n, l.SizeBytes())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s.Compact(context.Background())
		if cleaned, err := cleanedTo(s); err != nil || cleaned != k.end {
			t.Errorf("cleaned up to %d of %d, %v", cleaned, k.end, err)
		}
		closeStore(t, s)
	})
}
