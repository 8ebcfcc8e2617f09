package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

func FuzzDecodeHeader(f *testing.F) {
	f.Add(buildBatch(batchSpec{}))
	f.Add(buildBatch(batchSpec{base: 1 << 40, records: 3, pid: 9, attrs: 0x10}))
	f.Add(make([]byte, 61))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := segment.DecodeHeader(b)
		if err != nil {
			if !errors.Is(err, segment.ErrCorruptBatch) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if h.SizeBytes() < segment.BatchHeaderSize || h.LastOffset() < h.BaseOffset || h.NextOffset() <= h.LastOffset() || h.BaseOffset < 0 || h.LastSequence() < -1 {
			t.Errorf("accepted %+v", h)
		}
	})
}

func FuzzValidateBatch(f *testing.F) {
	f.Add(buildBatch(batchSpec{records: 5, ms: 3}), true)
	f.Add(buildBatch(batchSpec{records: 2, pid: 4, attrs: 0x10}), true)
	f.Add(buildBatch(batchSpec{attrs: 4}), true)
	f.Add(buildBatch(batchSpec{noKey: true}), false)
	known := []error{segment.ErrCorruptBatch, segment.ErrInvalidRecord, segment.ErrMessageTooLarge, segment.ErrInvalidTimestamp, segment.ErrUnsupportedCompression}
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		b = bytes.Clone(b)
		if fix && len(b) >= segment.BatchHeaderSize {
			binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
			fixCRC(b)
		}
		h, err := segment.ValidateBatch(b, segment.Limits{MaxBatchBytes: 1 << 20, NowMs: 1000, Window: true, TimestampBeforeMaxMs: 1 << 62, TimestampAfterMaxMs: 1 << 40, RequireKey: true})
		if err != nil {
			if !slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if got, err := segment.DecodeHeader(b); err != nil || got != h || h.SizeBytes() != int64(len(b)) || h.Count != h.LastOffsetDelta+1 || h.IsControl() {
			t.Errorf("accepted %+v, decoded as %+v, %v", h, got, err)
		}
		segment.AssignOffsets(b, 77, 1)
		segment.SetLogAppendTime(b, 5)
		if _, err := segment.ValidateBatch(b, segment.Limits{AllowControl: true}); err != nil {
			t.Errorf("not valid after assignment: %v", err)
		}
	})
}

func FuzzCutBatches(f *testing.F) {
	two := append(buildBatch(batchSpec{base: 5, records: 3}), buildBatch(batchSpec{base: 8})...)
	f.Add(two, int64(6), int64(100), int64(9))
	f.Add(two[:len(two)-1], int64(5), int64(1<<20), int64(1<<40))
	f.Add([]byte{}, int64(0), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, buf []byte, from, maxBytes, bound int64) {
		start, end, next, err := segment.CutBatches(buf, segment.Offset(from), maxBytes, segment.Offset(bound))
		if start < 0 || end < start || end > len(buf) || (start == end && next != segment.Offset(from)) {
			t.Fatalf("%d:%d of %d, next %d, %v", start, end, len(buf), next, err)
		}
		first := true
		for at := start; at < end; first = false {
			h, err := segment.DecodeHeader(buf[at:])
			if err != nil || at+int(h.SizeBytes()) > end || h.LastOffset() < segment.Offset(from) || h.NextOffset() > segment.Offset(bound) {
				t.Fatalf("batch at %d: %+v, %v", at, h, err)
			}
			at += int(h.SizeBytes())
			if !first && int64(at-start) > maxBytes {
				t.Fatalf("%d bytes, at most %d wanted", at-start, maxBytes)
			}
			if at == end && h.NextOffset() != next {
				t.Fatalf("next %d after %+v", next, h)
			}
		}
	})
}

func FuzzIndexLoad(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 0, 0, 0, 9}, []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5}, int64(100))
	f.Add([]byte{0, 0, 0, 5}, []byte{}, int64(0))
	f.Add(make([]byte, 16), make([]byte, 24), int64(1<<31))
	f.Fuzz(func(t *testing.T, offsets, times []byte, logSize int64) {
		a, b, err := segment.DecodeIndexForTest(7, offsets, times, logSize)
		if err == nil && (!bytes.Equal(a, offsets) || !bytes.Equal(b, times)) {
			t.Error("accepted, but not the same when encoded again")
		}
		if _, corrupt := errors.AsType[*segment.CorruptError](err); err != nil && !corrupt {
			t.Errorf("untyped error %v", err)
		}
		segment.DecodeFramesForTest(7, offsets, logSize)
		checkLoadedIndex(t, offsets, times)
	})
}

// checkLoadedIndex puts the files beside a good log: whatever is in them, every batch is found.
func checkLoadedIndex(t *testing.T, offsets, times []byte) {
	mem := newDir(t)
	var log []byte
	for i := range 4 {
		log = append(log, buildBatch(batchSpec{base: segment.Offset(i), ms: int64(i)})...)
	}
	writeFile(t, mem, dir+"/"+segment.LogName(0), log)
	writeFile(t, mem, dir+"/"+segment.IndexName(0), offsets)
	writeFile(t, mem, dir+"/"+segment.TimeIndexName(0), times)
	r := must[*segment.Reader](t)(segment.OpenSealed(mem, dir, segment.Sealed{Base: 0, Next: 4, SizeBytes: int64(len(log))}, newCache()))
	r.Acquire()
	defer r.Release()
	for from := range segment.Offset(4) {
		if ext, err := r.Find(from, 1, unbounded, -1); err != nil || ext.First != from || ext.Next != from+1 {
			t.Errorf("find %d: %+v, %v", from, ext, err)
		}
	}
	if ms, err := r.VerifyMaxTimestamp(); err != nil || ms != 3 {
		t.Errorf("max timestamp %d, %v", ms, err)
	}
}

func FuzzRecover(f *testing.F) {
	var log []byte
	for i := range 4 {
		log = append(log, buildBatch(batchSpec{base: segment.Offset(i * 2), records: 2, pid: 3, seq: int32(i * 2)})...)
	}
	f.Add(log, int64(4), []byte{})
	f.Add(log[:len(log)-5], int64(0), []byte{0x4c, 0x47, 0x58, 0x49})
	f.Add(append(slices.Clone(log[200:]), log...), int64(100), []byte{})
	f.Add([]byte{}, int64(3), []byte{})
	f.Fuzz(func(t *testing.T, log []byte, point int64, frames []byte) {
		if point < 0 || point > 1<<40 {
			return
		}
		mem := newDir(t)
		name := dir + "/" + segment.LogName(0)
		writeFile(t, mem, name, log)
		writeFile(t, mem, dir+"/00000000000000000000.lagoon-index", frames)
		ps := segment.NewProducerState(segment.ProducerOptions{})
		res, w, err := segment.Recover(mem, dir, 0, segment.Offset(point), segment.Options{IndexIntervalBytes: 10}, ps, 1, newCache())
		if err != nil {
			t.Fatal(err)
		}
		left := must[[]byte](t)(vfs.ReadFile(mem, name, 1<<30))
		if !bytes.HasPrefix(left, log[:int64(len(log))-res.CutBytes]) || res.Next < segment.Offset(point) || int64(len(left)) != res.SizeBytes {
			t.Fatalf("%+v, %d of %d bytes left", res, len(left), len(log))
		}
		readAll(t, w.Reader())
		again, w2, err := segment.Recover(mem.Kill(), dir, 0, segment.Offset(point), segment.Options{IndexIntervalBytes: 10}, nil, 1, newCache())
		if err != nil || again.Next != res.Next || again.SizeBytes != res.SizeBytes || again.CutBytes != 0 {
			t.Fatalf("again: %+v, %v; first %+v", again, err, res)
		}
		readAll(t, w2.Reader())
	})
}

// readAll walks the segment by Find to its end: it always gets on, and never hands out a header that does not decode.
func readAll(t *testing.T, r *segment.Reader) {
	r.Acquire()
	defer r.Release()
	f := must[vfs.File](t)(r.File())
	for from, end := r.Meta().Base, r.Meta().Next; from < end; {
		ext, err := r.Find(from, 200, unbounded, -1)
		if _, corrupt := errors.AsType[*segment.CorruptError](err); corrupt {
			return // damage in bytes that recovery had no reason to read
		}
		if err != nil || ext.Next <= from {
			t.Fatalf("find %d of %d: %+v, %v", from, end, ext, err)
		}
		if ext.Len > 0 {
			var b [segment.BatchHeaderSize]byte
			must[int](t)(f.ReadAt(b[:], ext.Pos))
			if h, err := segment.DecodeHeader(b[:]); err != nil || h.BaseOffset != ext.First {
				t.Fatalf("find %d: %+v has %+v, %v", from, ext, h, err)
			}
		}
		from = ext.Next
	}
}

func FuzzSnapshot(f *testing.F) {
	mem := newDir(f)
	ps := segment.NewProducerState(segment.ProducerOptions{})
	for i := range int32(6) {
		ps.Update(producerBatch(5, 0, i*2, 2), segment.Offset(i*2), 1)
		ps.Update(producerBatch(int64(10+i), 0, 0, 1), segment.Offset(12+i), 1)
	}
	check(f, ps.Save(mem, dir, ps.End()))
	snapshot := must[[]byte](f)(vfs.ReadFile(mem, dir+"/"+segment.SnapshotName(ps.End()), 1<<20))
	sidecar := must[[]byte](f)(vfs.ReadFile(mem, dir+"/"+segment.BatchesName(ps.End()), 1<<20))
	f.Add(snapshot, sidecar)
	f.Add(snapshot[:56], sidecar[:20])
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, snapshot, sidecar []byte) {
		snapshot, sidecar = bytes.Clone(snapshot), bytes.Clone(sidecar)
		segment.FixSnapshotCRCForTest(snapshot, sidecar)
		a, _, err := segment.DecodeSnapshotForTest(snapshot, sidecar, 1<<40)
		if _, corrupt := errors.AsType[*segment.CorruptError](err); err != nil && !corrupt {
			t.Errorf("untyped error %v", err)
		}
		if a != nil && len(a) != len(snapshot) {
			t.Errorf("%d bytes decoded and encoded again are %d", len(snapshot), len(a))
		}
	})
}

// FuzzTextFiles gives the same bytes to all readers of text files: what one of them takes means the same when it is written again.
func FuzzTextFiles(f *testing.F) {
	f.Add([]byte("0\n2\norders 0 1200\norders 1 0\n"))
	f.Add([]byte("0\n2\n0 0\n4 100\n"))
	f.Add([]byte("version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"))
	f.Add([]byte(`{"version":0,"brokerEpoch":77}`))
	f.Add([]byte("0\n99999999999\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := newDir(t)
		bad := func(err error) bool {
			if _, corrupt := errors.AsType[*segment.CorruptError](err); err != nil && !corrupt {
				t.Errorf("untyped error %v", err)
			}
			return err != nil
		}
		writeFile(t, mem, segment.RecoveryPointFile, b)
		if m, err := segment.ReadCheckpoint(mem, segment.RecoveryPointFile); !bad(err) {
			check(t, segment.WriteCheckpoint(mem, segment.RecoveryPointFile, m))
			if again := must[map[segment.TopicPartition]segment.Offset](t)(segment.ReadCheckpoint(mem, segment.RecoveryPointFile)); !maps.Equal(m, again) {
				t.Errorf("%v, then %v", m, again)
			}
		}
		writeFile(t, mem, dir+"/leader-epoch-checkpoint", b)
		if c, err := segment.LoadEpochCache(mem, dir); !bad(err) {
			entries := c.Entries()
			for i := 1; i < len(entries); i++ {
				if entries[i].Epoch <= entries[i-1].Epoch || entries[i].Start < entries[i-1].Start {
					t.Errorf("not ascending: %v", entries)
				}
			}
		}
		writeFile(t, mem, dir+"/partition.metadata", b)
		if id, err := segment.ReadPartitionMetadata(mem, dir); !bad(err) {
			check(t, segment.WritePartitionMetadata(mem, dir, id))
			if again := must[[16]byte](t)(segment.ReadPartitionMetadata(mem, dir)); again != id || id == [16]byte{} {
				t.Errorf("topic id %x, then %x", id, again)
			}
		}
		writeFile(t, mem, segment.CleanShutdownFile, b)
		if _, found, err := segment.ReadCleanShutdown(mem); !found || err != nil {
			t.Errorf("the marker is there, but found %v, %v", found, err)
		}
	})
}

func FuzzTxnIndex(f *testing.F) {
	one := binary.BigEndian.AppendUint16(nil, 0)
	for _, v := range []uint64{7, 90, 110, 90} {
		one = binary.BigEndian.AppendUint64(one, v)
	}
	f.Add(one, int64(100))
	f.Add(append(bytes.Clone(one), one...), int64(0)) // the same marker twice
	f.Add(one[:33], int64(0))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, base int64) {
		if base < 0 {
			return
		}
		again, err := segment.DecodeTxnsForTest(b, segment.Offset(base))
		if _, corrupt := errors.AsType[*segment.CorruptError](err); err != nil && !corrupt {
			t.Errorf("untyped error %v", err)
		}
		if err == nil && !bytes.Equal(b, again) {
			t.Errorf("%x decoded and encoded again is %x", b, again)
		}
	})
}
