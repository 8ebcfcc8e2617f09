package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"

	"lagoon/internal/vfs"
)

// AbortedTxn is an entry of a .txnindex: a transaction that an abort marker in this segment ended. Its records may lie in older
// segments. See docs/formats/txnindex.md.
type AbortedTxn struct {
	ProducerID int64
	First      Offset // of its first batch in the partition
	Last       Offset // of its marker
	LastStable Offset // every transaction that was open when the marker came begins here or later
}

// Kafka's entry, version 0: int16 version, int64 each of producer id, first, last and last stable offset.
const (
	txnEntrySize    = 34
	txnEntryVersion = 0
)

func encodeTxns(list []AbortedTxn) []byte {
	b := make([]byte, 0, len(list)*txnEntrySize)
	for _, t := range list {
		b = binary.BigEndian.AppendUint16(b, txnEntryVersion)
		for _, v := range []int64{t.ProducerID, int64(t.First), int64(t.Last), int64(t.LastStable)} {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
	}
	return b
}

// decodeTxns reads the entries of the segment at base, which must be in the order of their markers.
func decodeTxns(b []byte, base Offset) ([]AbortedTxn, error) {
	if len(b)%txnEntrySize != 0 {
		return nil, &CorruptError{Pos: -1, Err: fmt.Errorf("%d bytes are no multiple of %d", len(b), txnEntrySize)}
	}
	list := make([]AbortedTxn, 0, len(b)/txnEntrySize)
	last := base - 1
	for pos := 0; pos < len(b); pos += txnEntrySize {
		e := b[pos : pos+txnEntrySize]
		at := func(i int) int64 { return int64(binary.BigEndian.Uint64(e[i:])) }
		t := AbortedTxn{ProducerID: at(2), First: Offset(at(10)), Last: Offset(at(18)), LastStable: Offset(at(26))}
		if version := binary.BigEndian.Uint16(e); version != txnEntryVersion || t.ProducerID < 0 || t.First < 0 || t.First > t.Last || t.Last <= last || t.LastStable < 0 {
			return nil, &CorruptError{Pos: int64(pos), Err: fmt.Errorf("entry of version %d: producer %d, offsets %d to %d, last stable %d",
				version, t.ProducerID, t.First, t.Last, t.LastStable)}
		}
		last = t.Last
		list = append(list, t)
	}
	return list, nil
}

// readTxnIndex reads the aborted transactions of a segment; none when it has no such file. Errors: *CorruptError.
// suffix is what its name has behind it, usually nothing.
func readTxnIndex(fsys vfs.FS, dir string, base Offset, suffix string) ([]AbortedTxn, error) {
	name := inDir(dir, TxnIndexName(base)+suffix)
	b, err := vfs.ReadFile(fsys, name, maxIndexFileBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, vfs.ErrTooLarge):
		return nil, &CorruptError{Path: name, Pos: -1, Err: err}
	case err != nil:
		return nil, err
	}
	list, err := decodeTxns(b, base)
	if corrupt, ok := errors.AsType[*CorruptError](err); ok {
		corrupt.Path = name
	}
	return list, err
}

// writeTxnIndex replaces the file durably. As in Kafka, a segment without aborted transactions needs none.
func writeTxnIndex(fsys vfs.FS, dir string, base Offset, suffix string, list []AbortedTxn) error {
	name := inDir(dir, TxnIndexName(base)+suffix)
	if len(list) == 0 {
		err := fsys.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fsys.SyncDir(dir)
	}
	return vfs.WriteFileAtomic(fsys, name, encodeTxns(list))
}

// NoteAborted takes in a transaction whose abort marker was appended last.
func (w *Writer) NoteAborted(t AbortedTxn) {
	w.act.mu.Lock()
	defer w.act.mu.Unlock()
	w.act.idx.aborted = append(w.act.idx.aborted, t)
}

// SaveAborted writes the aborted transactions whose markers lie below the offset to, durably. Do so before a producer snapshot at to
// is saved: a start derives only what lies above the snapshot from the log.
func (w *Writer) SaveAborted(to Offset) error {
	w.act.mu.RLock()
	list := w.act.idx.aborted
	w.act.mu.RUnlock()
	n := sort.Search(len(list), func(i int) bool { return list[i].Last >= to })
	if n == 0 {
		return nil
	}
	if err := writeTxnIndex(w.fs, w.dir, w.r.base, "", list[:n]); err != nil {
		return fmt.Errorf("save aborted transactions: %w", err)
	}
	return nil
}

// Aborted lists the transactions that markers in this segment aborted, by marker. It may load the index (AbortedReady tells). The
// slice is shared and must not be changed. Errors: *CorruptError when the .txnindex is damaged: SetAborted puts that right.
func (r *Reader) Aborted() ([]AbortedTxn, error) {
	if !r.MayHaveAborted() {
		return nil, nil
	}
	if a := r.act.Load(); a != nil {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return a.idx.aborted, a.idx.txnFault
	}
	x, err := r.index()
	if err != nil {
		return nil, err
	}
	return x.aborted, x.txnFault
}

// MayHaveAborted is false when no marker in this segment aborted anything. It costs one or two loads.
func (r *Reader) MayHaveAborted() bool {
	if a := r.act.Load(); a != nil {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return len(a.idx.aborted) > 0 || a.idx.txnFault != nil
	}
	return !r.noAborted.Load()
}

// AbortedReady tells whether Aborted answers without a device.
func (r *Reader) AbortedReady() bool {
	return r.act.Load() != nil || r.noAborted.Load() || r.idx.Load() != nil
}

// SetAborted replaces the list, in memory and, of a sealed segment, durably in the file. The caller has r acquired and appends
// nothing meanwhile.
func (r *Reader) SetAborted(list []AbortedTxn) error {
	if a := r.act.Load(); a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.idx.aborted, a.idx.txnFault = list, nil
		return nil
	}
	if err := r.byName(func(_, index string) error { return writeTxnIndex(r.fs, r.dir, r.base, index, list) }); err != nil {
		return fmt.Errorf("write aborted transactions of %s: %w", r.logName, err)
	}
	r.noAborted.Store(false)
	x, err := r.index()
	if err != nil {
		return err
	}
	r.healMu.Lock()
	defer r.healMu.Unlock()
	own := *x
	own.aborted, own.txnFault = list, nil
	r.noAborted.Store(len(list) == 0)
	r.keepIndex(&own)
	return nil
}

// takeAborted brings the list in line with what a replay of the log from the offset from on has found. Below it the file is right;
// without a snapshot, from 0, what the file names and the replay could not see begin is kept.
func (r *Reader) takeAborted(found []AbortedTxn, from Offset) error {
	have, err := r.Aborted()
	if err != nil && (!isCorrupt(err) || from > r.base) {
		return err
	}
	next := r.Meta().Next
	merged := slices.DeleteFunc(slices.Clone(have), func(t AbortedTxn) bool {
		if t.Last < from {
			return false
		}
		known := slices.ContainsFunc(found, func(f AbortedTxn) bool { return f.Last == t.Last })
		return from > 0 || known || t.Last >= next
	})
	merged = append(merged, found...)
	slices.SortFunc(merged, func(a, b AbortedTxn) int { return int(min(1, max(-1, a.Last-b.Last))) })
	if err == nil && slices.Equal(have, merged) {
		return nil
	}
	return r.SetAborted(merged)
}
