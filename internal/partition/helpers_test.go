package partition_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"lagoon/admission"
	"lagoon/cachectl"
	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/segment"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// producer is the idempotence part of a batch; the zero value means none.
type producer struct {
	id    int64
	epoch int16
	seq   int32
}

// batch is one uncompressed client batch of n records with values of size bytes that begin with tag.
func batch(tag string, n, size int, p *producer, nowMs int64) []byte {
	var recs []byte
	for i := range n {
		value := make([]byte, size)
		copy(value, fmt.Sprintf("%s/%d", tag, i))
		body := []byte{0}
		body = binary.AppendVarint(body, 0)
		body = binary.AppendVarint(body, int64(i))
		body = binary.AppendVarint(body, -1)
		body = binary.AppendVarint(body, int64(len(value)))
		body = append(body, value...)
		body = binary.AppendVarint(body, 0)
		recs = binary.AppendVarint(recs, int64(len(body)))
		recs = append(recs, body...)
	}
	b := make([]byte, segment.BatchHeaderSize, segment.BatchHeaderSize+len(recs))
	b = append(b, recs...)
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], 0xffffffff)
	b[16] = 2
	be.PutUint32(b[23:], uint32(n-1))
	be.PutUint64(b[27:], uint64(nowMs))
	be.PutUint64(b[35:], uint64(nowMs))
	id, epoch, seq := int64(-1), int16(-1), int32(-1)
	if p != nil {
		id, epoch, seq = p.id, p.epoch, p.seq
	}
	be.PutUint64(b[43:], uint64(id))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(seq))
	be.PutUint32(b[57:], uint32(n))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

func config() partition.Config {
	return partition.Config{SegmentBytes: 1 << 20, SegmentMs: -1, SegmentIndexBytes: 1 << 20, IndexIntervalBytes: 4096, RetentionMs: -1,
		RetentionBytes: -1, LocalRetentionMs: -2, LocalRetentionBytes: -2, Delete: true, MaxMessageBytes: 1 << 20,
		TimestampBeforeMaxMs: 1<<63 - 1, TimestampAfterMaxMs: 1<<63 - 1}
}

func osFS(t testing.TB) vfs.FS {
	t.Helper()
	fs, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// open makes a store over the file systems, one tier each: t0, t1 …
func open(t testing.TB, change func(*partition.Options), fss ...vfs.FS) *partition.Store {
	t.Helper()
	s, err := tryOpen(t, change, fss...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t testing.TB, change func(*partition.Options), fss ...vfs.FS) (*partition.Store, error) {
	t.Helper()
	pool, err := cachectl.NewPool(16<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	opt := partition.Options{Cache: cachectl.New(cachectl.LinuxKernel(), cachectl.Options{VerifyEvery: 1}), Pool: pool,
		Readers: admission.Config{MinBytes: 1 << 20, MinAge: time.Nanosecond}}
	for i, fs := range fss {
		opt.Dirs = append(opt.Dirs, partition.DirSpec{Tier: fmt.Sprintf("t%d", i), FS: fs, ReserveBytes: 1})
	}
	if change != nil {
		change(&opt)
	}
	return partition.Open(opt)
}

var topicID = [16]byte{1, 2, 3}

func load(t testing.TB, s *partition.Store, cfg partition.Config, partitions int32) *partition.Log {
	t.Helper()
	if err := s.Load(context.Background(), []partition.TopicSpec{{Topic: "orders", ID: topicID, Partitions: partitions, Config: cfg}}); err != nil {
		t.Fatal(err)
	}
	l, ok := s.Log("orders", 0)
	if !ok {
		t.Fatal("orders-0 is not there")
	}
	return l
}

// produce appends and waits until durable.
func produce(t testing.TB, l *partition.Log, b []byte) partition.Appended {
	t.Helper()
	a, err := l.Append(context.Background(), partition.AppendRequest{Records: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Durable(context.Background(), a.Next); err != nil {
		t.Fatal(err)
	}
	return a
}

// consume reads from one offset to the high watermark, waiting for the device where it has to. The batches, from the one that holds
// the offset on, must be want.
func consume(t testing.TB, l *partition.Log, ref partition.ReaderRef, from segment.Offset, maxBytes int64, want []byte) {
	t.Helper()
	var p []byte
	start, n := from, len(want)
	deadline := time.After(5 * time.Minute)
	for {
		w := partition.NewWatch()
		res, err := l.Read(partition.ReadRequest{Reader: ref, From: from, MaxBytes: maxBytes, MustServe: true, Watch: w})
		if err != nil {
			t.Fatalf("read at %d: %v", from, err)
		}
		if from >= res.Offsets.HighWatermark {
			w.Close()
			if len(want) > 0 {
				t.Fatalf("%s got %d bytes from %d on, want %d", ref.ClientID, n-len(want), start, n)
			}
			return
		}
		if res.Chunk == nil {
			select {
			case <-w.C():
			case <-deadline:
				t.Fatalf("read at %d: nothing came (pending %v)", from, res.Pending)
			}
			w.Close()
			continue
		}
		w.Close()
		p = slices.Grow(p[:0], int(res.Chunk.Len()))[:res.Chunk.Len()] // fresh memory is dear under the race detector
		if _, err := res.Chunk.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		res.Chunk.Release()
		for rest := p; len(rest) > 0; {
			h, err := segment.DecodeHeader(rest)
			if err != nil {
				t.Fatalf("read at %d: %v", from, err)
			}
			b := rest[:h.SizeBytes()]
			rest = rest[h.SizeBytes():]
			if got := crc32.Checksum(b[21:], castagnoli); got != h.CRC {
				t.Fatalf("batch %d: wrong checksum", h.BaseOffset)
			}
			if h.LastOffset() < from {
				continue
			}
			if h.BaseOffset > from {
				t.Fatalf("gap: asked for %d, batch begins at %d", from, h.BaseOffset)
			}
			if !bytes.HasPrefix(want, b) {
				t.Fatalf("%s: batch %d is not what was sent, or nothing was, %d bytes behind offset %d", ref.ClientID, h.BaseOffset, n-len(want), start)
			}
			want = want[len(b):]
			from = h.NextOffset()
		}
	}
}

// since is what a reader that begins at an offset gets of all batches.
func since(t testing.TB, all []byte, from segment.Offset) []byte {
	t.Helper()
	for len(all) > 0 {
		h, err := segment.DecodeHeader(all)
		if err != nil {
			t.Fatal(err)
		}
		if h.LastOffset() >= from {
			break
		}
		all = all[h.SizeBytes():]
	}
	return all
}

func closeStore(t testing.TB, s *partition.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
