package compaction

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"lagoon/internal/records"
	"lagoon/segment"
)

// Mapper fills an OffsetMap from the dirty batches of a log, in order.
type Mapper struct {
	Map  *OffsetMap
	From segment.Offset // first dirty offset: what lies below is known to be unique
	Txns *Transactions
	// Unreadable hears of batches whose records cannot be read. They stay as they are. May be nil.
	Unreadable func(h segment.BatchHeader, err error)

	unpack records.Unpacker
}

// Add takes in the next batch. full: the map has no more room, and knows the log up to its End only; nothing more must be added.
func (m *Mapper) Add(h segment.BatchHeader, batch []byte) (full bool, err error) {
	if h.LastOffset() < m.From {
		return false, m.seen(h, batch)
	}
	if h.IsControl() || h.Count == 0 {
		if err := m.seen(h, batch); err != nil {
			return false, err
		}
		m.Map.end = h.NextOffset()
		return false, nil
	}
	if m.Txns.Data(h) { // aborted: nothing in it counts
		m.Map.end = h.NextOffset()
		return false, nil
	}
	err = m.unpack.Open(h, batch).Each(func(r records.Record) bool {
		if r.Key != nil && r.Offset >= m.From {
			if full = !m.Map.Put(r.Key, r.Offset); full {
				return false
			}
		}
		m.Map.end = max(m.Map.end, r.Offset+1)
		return true
	})
	if err != nil {
		if !unreadable(err) {
			return false, err
		}
		if m.Unreadable != nil {
			m.Unreadable(h, err)
		}
	}
	if !full {
		m.Map.end = h.NextOffset()
	}
	return full, nil
}

func (m *Mapper) seen(h segment.BatchHeader, batch []byte) error {
	if !h.IsControl() {
		m.Txns.Data(h)
		return nil
	}
	_, err := m.Txns.Marker(h, batch)
	return err
}

// Advance says that everything below next was added, also where no batch holds its offsets.
func (m *Mapper) Advance(next segment.Offset) { m.Map.end = max(m.Map.end, next) }

func unreadable(err error) bool {
	return errors.Is(err, records.ErrMalformed) || errors.Is(err, records.ErrTooLarge) || errors.Is(err, segment.ErrInvalidRecord)
}

// Fate is what becomes of a batch.
type Fate uint8

// The fates.
const (
	Keep    Fate = iota // as it is
	Rewrite             // with fewer records, or with the end of a term noted in it
	Empty               // without records
	Drop                // not at all
)

// Producer is what the partition knows of an active producer: its last batch with records, or, when only a marker is known, its epoch.
type Producer struct {
	Epoch      int16
	LastOffset segment.Offset // of its last data, -1: none
}

// Filter says what stays of the batches of a log, in order from the oldest.
type Filter struct {
	Map               *OffsetMap
	Txns              *Transactions
	NowMs             int64
	DeleteRetentionMs int64
	Producers         map[int64]Producer
	// Unreadable as with Mapper.
	Unreadable func(h segment.BatchHeader, err error)

	Stats Stats

	unpack records.Unpacker
	pack   records.Packer
	out    bytes.Buffer
	record []byte
	marks  []bool
}

// Stats count what a Filter has done.
type Stats struct {
	BatchesRead, BatchesKept     int64
	RecordsRead, RecordsKept     int64
	BytesRead, BytesKept         int64
	RecordsWithoutKey, Malformed int64
}

// Place is where a Filter is in the log.
type Place struct {
	txns  *Transactions
	stats Stats
}

// Place remembers where f is, so that it can begin there once more.
func (f *Filter) Place() Place { return Place{f.Txns.clone(), f.Stats} }

// Return takes f back to a place: the batches behind it come again. Each place is for one return.
func (f *Filter) Return(to Place) { f.Txns, f.Stats = to.txns, to.stats }

// Next decides on the batch h and gives what to write in its place: batch itself, memory of the Filter that is valid until the next
// call, or nil. end is the offset at which the file that is written ends: the batch that reaches it stays, if only as a header.
func (f *Filter) Next(h segment.BatchHeader, batch []byte, end segment.Offset) (out []byte, fate Fate, err error) {
	f.Stats.BatchesRead++
	f.Stats.RecordsRead += int64(h.Count)
	f.Stats.BytesRead += h.SizeBytes()
	out, fate, err = f.next(h, batch, end)
	if len(out) > 0 {
		f.Stats.BatchesKept++
		f.Stats.BytesKept += int64(len(out))
		f.Stats.RecordsKept += int64(int32(binary.BigEndian.Uint32(out[atCount:])))
	}
	return out, fate, err
}

func (f *Filter) next(h segment.BatchHeader, batch []byte, end segment.Offset) ([]byte, Fate, error) {
	discard, err := f.discard(h, batch)
	if err != nil {
		if !unreadable(err) {
			return nil, Drop, err
		}
		f.report(h, err)
		return batch, Keep, nil
	}
	v := verdict{horizon: -1}
	if h.DeleteHorizon() {
		v.horizon = h.BaseTimestamp
	}
	marker := h.IsControl() && discard // of a transaction of which nothing is left
	if marker {
		discard = v.horizon >= 0 && v.horizon <= f.NowMs
	}
	switch {
	case discard || h.Count == 0:
	case h.IsControl():
		v.batch, v.kept = f.unpack.Open(h, batch), h.Count
	default:
		v.batch = f.unpack.Open(h, batch)
		if err := f.judge(&v); err != nil {
			if !unreadable(err) {
				return nil, Drop, err
			}
			f.report(h, err)
			return batch, Keep, nil
		}
	}
	setHorizon := v.horizon < 0 && (marker && v.kept > 0 || v.tombstones)
	if setHorizon {
		v.horizon = f.NowMs + min(f.DeleteRetentionMs, math.MaxInt64-f.NowMs)
	}
	switch {
	case v.kept == h.Count && h.Count > 0 && !setHorizon:
		return batch, Keep, nil
	case v.kept > 0:
		out, err := f.rewrite(h, &v, setHorizon)
		return out, Rewrite, err
	case f.lastOfProducer(h) || h.NextOffset() == end:
		return f.empty(h), Empty, nil
	}
	return nil, Drop, nil
}

func (f *Filter) report(h segment.BatchHeader, err error) {
	f.Stats.Malformed++
	if f.Unreadable != nil {
		f.Unreadable(h, err)
	}
}

// discard: the batch belongs to an aborted transaction, or it is the marker of a transaction of which nothing is left.
func (f *Filter) discard(h segment.BatchHeader, batch []byte) (bool, error) {
	if h.IsControl() {
		return f.Txns.Marker(h, batch)
	}
	return f.Txns.Data(h), nil
}

// verdict is which records of a batch stay.
type verdict struct {
	batch      records.Batch
	stays      []bool
	kept       int32
	tombstones bool  // among those that stay
	horizon    int64 // end of the term of delete markers in ms, -1: not set
}

// judge looks at the keys.
func (f *Filter) judge(v *verdict) error {
	f.marks = f.marks[:0]
	defer func() { v.stays = f.marks }()
	return v.batch.Each(func(r records.Record) bool {
		stays := f.stays(r, v.horizon)
		f.marks = append(f.marks, stays)
		if stays {
			v.kept++
			v.tombstones = v.tombstones || r.Value == nil
		}
		return true
	})
}

func (f *Filter) stays(r records.Record, horizon int64) bool {
	if r.Offset >= f.Map.End() {
		return true
	}
	if r.Key == nil {
		f.Stats.RecordsWithoutKey++
		return false
	}
	return r.Offset >= f.Map.Newest(r.Key) && (r.Value != nil || horizon < 0 || f.NowMs < horizon)
}

// lastOfProducer: the batch holds the last sequence of a producer that is still known or, where only markers of it are, its epoch.
func (f *Filter) lastOfProducer(h segment.BatchHeader) bool {
	p, known := f.Producers[h.ProducerID]
	if !known || !h.HasProducer() {
		return false
	}
	if p.LastOffset >= 0 {
		return h.LastOffset() == p.LastOffset
	}
	return h.IsControl() && h.ProducerEpoch == p.Epoch
}

// Where fields of a batch header lie (docs/formats/log.md).
const (
	atLength          = 8
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atBaseTimestamp   = 27
	atMaxTimestamp    = 35
	atCount           = 57
)

const (
	attrCompression   = 0x07
	attrDeleteHorizon = 0x40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal writes length and checksum into the whole batch b.
func seal(b []byte) {
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
}

// empty is the batch's header alone: offsets, producer and sequence stay.
func (f *Filter) empty(h segment.BatchHeader) []byte {
	f.out.Reset()
	b := append(f.out.AvailableBuffer(), make([]byte, segment.BatchHeaderSize)...)
	f.header(b, h)
	be := binary.BigEndian
	be.PutUint16(b[atAttributes:], uint16(h.Attributes)&^(attrCompression|attrDeleteHorizon))
	be.PutUint64(b[atBaseTimestamp:], ^uint64(0))
	be.PutUint32(b[atCount:], 0)
	seal(b)
	return b
}

// header writes the fields of h that a smaller batch takes over.
func (f *Filter) header(b []byte, h segment.BatchHeader) {
	be := binary.BigEndian
	be.PutUint64(b, uint64(h.BaseOffset))
	be.PutUint32(b[atLeaderEpoch:], uint32(h.LeaderEpoch))
	b[atMagic] = byte(h.Magic)
	be.PutUint16(b[atAttributes:], uint16(h.Attributes))
	be.PutUint32(b[atLastOffsetDelta:], uint32(h.LastOffsetDelta))
	be.PutUint64(b[atBaseTimestamp:], uint64(h.BaseTimestamp))
	be.PutUint64(b[atMaxTimestamp:], uint64(h.MaxTimestamp))
	be.PutUint64(b[43:], uint64(h.ProducerID))
	be.PutUint16(b[51:], uint16(h.ProducerEpoch))
	be.PutUint32(b[53:], uint32(h.BaseSequence))
}

// rewrite makes the batch anew with the records that stay, in the codec it had.
func (f *Filter) rewrite(h segment.BatchHeader, v *verdict, setHorizon bool) ([]byte, error) {
	f.out.Reset()
	var head [segment.BatchHeaderSize]byte
	f.out.Write(head[:])
	w, err := f.pack.To(h.Compression(), &f.out)
	if err != nil {
		return nil, err
	}
	i, newest := 0, int64(-1)
	var failed error
	err = v.batch.Each(func(r records.Record) bool {
		stays := v.stays == nil || v.stays[i]
		i++
		if stays {
			newest = max(newest, r.TimestampMs)
			failed = f.write(w, h, r, v.horizon, setHorizon)
		}
		return failed == nil
	})
	if err = errors.Join(err, failed, w.Close()); err != nil {
		return nil, fmt.Errorf("rewrite batch %d: %w", h.BaseOffset, err)
	}
	b := f.out.Bytes()
	f.header(b, h)
	be := binary.BigEndian
	if setHorizon {
		be.PutUint16(b[atAttributes:], uint16(h.Attributes)|attrDeleteHorizon)
		be.PutUint64(b[atBaseTimestamp:], uint64(v.horizon))
	}
	if !h.LogAppendTime() {
		be.PutUint64(b[atMaxTimestamp:], uint64(newest))
	}
	be.PutUint32(b[atCount:], uint32(v.kept))
	seal(b)
	return b, nil
}

// write writes one record. Where the base timestamp becomes the end of the term, the record's is told from there.
func (f *Filter) write(w io.Writer, h segment.BatchHeader, r records.Record, horizon int64, setHorizon bool) error {
	raw := r.Raw
	if setHorizon {
		delta, n := binary.Varint(raw[1:])
		body := append(f.record[:0], raw[0])
		body = binary.AppendVarint(body, h.BaseTimestamp+delta-horizon)
		body = append(body, raw[1+n:]...)
		f.record, raw = body, body
	}
	var length [binary.MaxVarintLen64]byte
	if _, err := w.Write(length[:binary.PutVarint(length[:], int64(len(raw)))]); err != nil {
		return err
	}
	_, err := w.Write(raw)
	return err
}

// Filler is a batch without records that covers [first, next), for the end of a file whose last batches are all gone. It is of no
// producer. Lengths of more than 2^31 offsets do not come up: a segment spans less.
func Filler(first, next segment.Offset, epoch int32) []byte {
	b := make([]byte, segment.BatchHeaderSize)
	be := binary.BigEndian
	be.PutUint64(b, uint64(first))
	be.PutUint32(b[atLeaderEpoch:], uint32(epoch))
	b[atMagic] = 2
	be.PutUint32(b[atLastOffsetDelta:], uint32(next-first-1))
	be.PutUint64(b[atBaseTimestamp:], ^uint64(0))
	be.PutUint64(b[atMaxTimestamp:], ^uint64(0))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	seal(b)
	return b
}
