package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"lagoon/internal/vfs"
)

// Kafka's producer snapshot, version 1: int16 version, uint32 CRC32C of what follows, int32 count, 46 bytes per
// producer. It holds only the last batch of each; the four before are in our sidecar, see docs/formats/snapshot.md.
const (
	snapshotVersion    = 1
	snapshotHeaderSize = 10
	snapshotEntrySize  = 46

	batchesMagic      = 0x4c475042
	batchesVersion    = 1
	batchesHeaderSize = 20
	batchesRowSize    = 17 // without its batches
	batchesBatchSize  = 24

	// maxSnapshotBytes bounds what is read: 46 bytes for each of more producers than any partition ever had.
	maxSnapshotBytes = 1 << 28
)

// Save writes the snapshot that covers everything below offset at, durably: first the sidecar, then Kafka's file, whose
// appearance is the commit point. at must not lie below End. Errors: ErrOutOfRange, the file system's.
func (s *ProducerState) Save(fsys vfs.FS, dir string, at Offset) error {
	if at < s.end {
		return fmt.Errorf("save producer snapshot at %d: state covers %d: %w", at, s.end, ErrOutOfRange)
	}
	s.advance(at)
	rows := s.sorted()
	snapshot := encodeSnapshot(rows)
	sidecar := encodeBatches(rows, binary.BigEndian.Uint32(snapshot[2:]))
	if err := vfs.WriteFileAtomic(fsys, inDir(dir, BatchesName(at)), sidecar); err != nil {
		return fmt.Errorf("save producer snapshot: %w", err)
	}
	if err := vfs.WriteFileAtomic(fsys, inDir(dir, SnapshotName(at)), snapshot); err != nil {
		return fmt.Errorf("save producer snapshot: %w", err)
	}
	return nil
}

func encodeSnapshot(rows []*producer) []byte {
	b := make([]byte, 0, snapshotHeaderSize+len(rows)*snapshotEntrySize)
	b = binary.BigEndian.AppendUint16(b, snapshotVersion)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(rows)))
	for _, p := range rows {
		last := p.last()
		b = binary.BigEndian.AppendUint64(b, uint64(p.id))
		b = binary.BigEndian.AppendUint16(b, uint16(p.epoch))
		b = binary.BigEndian.AppendUint32(b, uint32(last.lastSeq))
		b = binary.BigEndian.AppendUint64(b, uint64(last.lastOffset))
		b = binary.BigEndian.AppendUint32(b, uint32(last.offsetDelta))
		b = binary.BigEndian.AppendUint64(b, uint64(p.lastMs))
		b = binary.BigEndian.AppendUint32(b, uint32(p.coordinatorEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(p.txnFirst))
	}
	binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
	return b
}

// decodeSnapshot reads Kafka's file that covers everything below offset at.
func decodeSnapshot(b []byte, at Offset) (map[int64]*producer, error) {
	if len(b) < snapshotHeaderSize {
		return nil, &CorruptError{Pos: -1, Err: fmt.Errorf("%d bytes are no producer snapshot", len(b))}
	}
	if version := binary.BigEndian.Uint16(b); version != snapshotVersion {
		return nil, &CorruptError{Pos: 0, Want: snapshotVersion, Got: version, Err: errors.New("version")}
	}
	if crc, want := crc32.Checksum(b[6:], castagnoli), binary.BigEndian.Uint32(b[2:]); crc != want {
		return nil, &CorruptError{Pos: 2, Want: fmt.Sprintf("%08x", want), Got: fmt.Sprintf("%08x", crc), Err: errors.New("checksum")}
	}
	n := int64(int32(binary.BigEndian.Uint32(b[6:])))
	if n < 0 || n*snapshotEntrySize != int64(len(b)-snapshotHeaderSize) {
		return nil, &CorruptError{Pos: 6, Err: fmt.Errorf("%d producers in %d bytes", n, len(b))}
	}
	rows := make(map[int64]*producer, n)
	for pos := snapshotHeaderSize; pos < len(b); pos += snapshotEntrySize {
		p, err := decodeProducer(b[pos:pos+snapshotEntrySize], at)
		if err == nil && rows[p.id] != nil {
			err = fmt.Errorf("producer %d twice", p.id)
		}
		if err != nil {
			return nil, &CorruptError{Pos: int64(pos), Err: err}
		}
		rows[p.id] = p
	}
	return rows, nil
}

func decodeProducer(b []byte, at Offset) (*producer, error) {
	p := &producer{
		id:               int64(binary.BigEndian.Uint64(b)),
		epoch:            int16(binary.BigEndian.Uint16(b[8:])),
		lastMs:           int64(binary.BigEndian.Uint64(b[26:])),
		coordinatorEpoch: int32(binary.BigEndian.Uint32(b[34:])),
		txnFirst:         Offset(binary.BigEndian.Uint64(b[38:])),
	}
	last := producerBatch{
		lastSeq:     int32(binary.BigEndian.Uint32(b[10:])),
		lastOffset:  Offset(binary.BigEndian.Uint64(b[14:])),
		offsetDelta: int32(binary.BigEndian.Uint32(b[22:])),
		ms:          p.lastMs,
	}
	if p.id < 0 || p.epoch < -1 || p.txnFirst < -1 || p.txnFirst >= at || last.lastOffset < -1 {
		return nil, fmt.Errorf("producer %d, epoch %d, last offset %d, transaction at %d", p.id, p.epoch, last.lastOffset, p.txnFirst)
	}
	if last.lastOffset < 0 {
		return p, nil
	}
	if !last.valid(at) {
		return nil, fmt.Errorf("producer %d: sequence %d, offset %d, delta %d", p.id, last.lastSeq, last.lastOffset, last.offsetDelta)
	}
	p.push(last)
	return p, nil
}

func (b producerBatch) valid(below Offset) bool {
	return b.lastSeq >= -1 && b.offsetDelta >= 0 && b.firstOffset() >= 0 && b.lastOffset < below
}

// encodeBatches writes the sidecar of the snapshot with checksum snapshotCRC.
func encodeBatches(rows []*producer, snapshotCRC uint32) []byte {
	b := make([]byte, 0, batchesHeaderSize+len(rows)*(batchesRowSize+4*batchesBatchSize))
	b = binary.BigEndian.AppendUint32(b, batchesMagic)
	b = binary.BigEndian.AppendUint32(b, batchesVersion)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, snapshotCRC)
	b = binary.BigEndian.AppendUint32(b, uint32(len(rows)))
	for _, p := range rows {
		earlier := p.kept()[:max(0, p.n-1)]
		b = binary.BigEndian.AppendUint64(b, uint64(p.id))
		b = binary.BigEndian.AppendUint64(b, uint64(p.seenMs))
		b = append(b, byte(len(earlier)))
		for _, e := range earlier {
			b = binary.BigEndian.AppendUint32(b, uint32(e.lastSeq))
			b = binary.BigEndian.AppendUint64(b, uint64(e.lastOffset))
			b = binary.BigEndian.AppendUint32(b, uint32(e.offsetDelta))
			b = binary.BigEndian.AppendUint64(b, uint64(e.ms))
		}
	}
	binary.BigEndian.PutUint32(b[8:], batchesCRC(b))
	return b
}

func batchesCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[12:])
}

// decodeBatches adds what the sidecar knows to rows, which come from the snapshot with checksum snapshotCRC.
// After an error rows is unusable.
func decodeBatches(b []byte, snapshotCRC uint32, rows map[int64]*producer) error {
	if len(b) < batchesHeaderSize || binary.BigEndian.Uint32(b) != batchesMagic {
		return &CorruptError{Pos: 0, Err: errors.New("no lagoon-batches file")}
	}
	if version := binary.BigEndian.Uint32(b[4:]); version != batchesVersion {
		return &CorruptError{Pos: 4, Want: batchesVersion, Got: version, Err: errors.New("version")}
	}
	if crc, want := batchesCRC(b), binary.BigEndian.Uint32(b[8:]); crc != want {
		return &CorruptError{Pos: 8, Want: fmt.Sprintf("%08x", want), Got: fmt.Sprintf("%08x", crc), Err: errors.New("checksum")}
	}
	if crc := binary.BigEndian.Uint32(b[12:]); crc != snapshotCRC {
		return &CorruptError{Pos: 12, Err: errors.New("belongs to another snapshot")}
	}
	n := int64(binary.BigEndian.Uint32(b[16:]))
	total := len(b)
	for b = b[batchesHeaderSize:]; len(b) >= batchesRowSize; n-- {
		used, err := decodeBatchesRow(b, rows)
		if err != nil {
			return &CorruptError{Pos: int64(total - len(b)), Err: err}
		}
		b = b[used:]
	}
	if len(b) != 0 || n != 0 {
		return &CorruptError{Pos: int64(total - len(b)), Err: errors.New("rows and count disagree")}
	}
	return nil
}

func decodeBatchesRow(b []byte, rows map[int64]*producer) (used int, err error) {
	id, n := int64(binary.BigEndian.Uint64(b)), int(b[16])
	used = batchesRowSize + n*batchesBatchSize
	p := rows[id]
	if p == nil || n > keptBatches-1 || used > len(b) || (n > 0 && p.n != 1) {
		return 0, fmt.Errorf("producer %d with %d earlier batches", id, n)
	}
	p.seenMs = int64(binary.BigEndian.Uint64(b[8:]))
	last := p.last()
	p.n = max(0, p.n-1)
	for at := batchesRowSize; at < used; at += batchesBatchSize {
		e := producerBatch{
			lastSeq:     int32(binary.BigEndian.Uint32(b[at:])),
			lastOffset:  Offset(binary.BigEndian.Uint64(b[at+4:])),
			offsetDelta: int32(binary.BigEndian.Uint32(b[at+12:])),
			ms:          int64(binary.BigEndian.Uint64(b[at+16:])),
		}
		if !e.valid(last.firstOffset()) || (p.n > 0 && e.firstOffset() <= p.last().lastOffset) {
			return 0, fmt.Errorf("producer %d: batch at offset %d out of order", id, e.lastOffset)
		}
		p.push(e)
	}
	if last.lastOffset >= 0 {
		p.push(last)
	}
	return used, nil
}

// LoadProducerState loads the newest usable snapshot at or below offset max; without one it gives an empty state whose
// End is 0. Snapshots that are damaged are moved to quarantine/ and reported; a damaged or missing sidecar (as in a
// directory that Kafka wrote) costs only the batches before the last one. Producers without our own time of last
// append count as seen at nowMs; those idle for too long are left out. Snapshots above max are of a log that was cut since, and are
// removed durably: it may grow beyond them again. Errors: the file system's.
func LoadProducerState(fsys vfs.FS, dir string, max Offset, nowMs int64, opt ProducerOptions) (*ProducerState, []*CorruptError, error) {
	listing, err := ListDir(fsys, dir)
	if err != nil {
		return nil, nil, err
	}
	if n := len(listing.Snapshots); n > 0 && listing.Snapshots[n-1] > max {
		if err := RemoveSnapshots(fsys, dir, func(at Offset) bool { return at > max }); err != nil {
			return nil, nil, err
		}
		if err := fsys.SyncDir(dir); err != nil {
			return nil, nil, err
		}
	}
	s := NewProducerState(opt)
	var damage []*CorruptError
	for i := len(listing.Snapshots) - 1; i >= 0; i-- {
		at := listing.Snapshots[i]
		if at > max {
			continue
		}
		rows, bad, err := loadSnapshot(fsys, dir, at, nowMs)
		damage = append(damage, bad...)
		if err != nil {
			return nil, damage, err
		}
		if rows != nil {
			s.producers, s.end = rows, at
			s.reopen()
			s.Expire(nowMs)
			break
		}
	}
	return s, damage, nil
}

// loadSnapshot gives nil rows when the snapshot is damaged.
func loadSnapshot(fsys vfs.FS, dir string, at Offset, nowMs int64) (rows map[int64]*producer, damage []*CorruptError, err error) {
	b, err := vfs.ReadFile(fsys, inDir(dir, SnapshotName(at)), maxSnapshotBytes)
	if err == nil {
		rows, err = decodeSnapshot(b, at)
	}
	if bad := asDamage(err, dir, SnapshotName(at)); bad != nil {
		return nil, append(damage, bad), quarantineFile(fsys, dir, SnapshotName(at))
	}
	if err != nil {
		return nil, nil, err
	}
	for _, p := range rows {
		p.seenMs = nowMs
	}
	sidecar, err := vfs.ReadFile(fsys, inDir(dir, BatchesName(at)), maxSnapshotBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return rows, nil, nil
	}
	if err == nil {
		err = decodeBatches(sidecar, binary.BigEndian.Uint32(b[2:]), rows)
	}
	bad := asDamage(err, dir, BatchesName(at))
	if bad == nil {
		return rows, nil, err
	}
	if err := quarantineFile(fsys, dir, BatchesName(at)); err != nil {
		return nil, nil, err
	}
	rows, err = decodeSnapshot(b, at) // decodeBatches left them half done
	for _, p := range rows {
		p.seenMs = nowMs
	}
	return rows, append(damage, bad), err
}

// asDamage tells damage, with the file's name filled in, from a failing device.
func asDamage(err error, dir, name string) *CorruptError {
	if errors.Is(err, vfs.ErrTooLarge) {
		return &CorruptError{Path: inDir(dir, name), Pos: -1, Err: err}
	}
	bad, ok := errors.AsType[*CorruptError](err)
	if !ok {
		return nil
	}
	bad.Path = inDir(dir, name)
	return bad
}

// RemoveSnapshots unlinks the snapshots for which drop says so, each with its sidecar, Kafka's file first.
func RemoveSnapshots(fsys vfs.FS, dir string, drop func(at Offset) bool) error {
	listing, err := ListDir(fsys, dir)
	if err != nil {
		return err
	}
	for _, at := range listing.Snapshots {
		if !drop(at) {
			continue
		}
		for _, name := range []string{SnapshotName(at), BatchesName(at)} {
			if err := fsys.Remove(inDir(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
