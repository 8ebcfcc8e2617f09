package compaction

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"lagoon/segment"
)

// slotBytes is one entry: 16 bytes of the key's hash, 8 of the offset.
const slotBytes = 24

// OffsetMap says which offset was the last of each key, in memory that is fixed when it is made. Keys are known by 128 bits of their
// SHA-256: that two keys share them is less likely than a memory error, and nobody can make two that do.
type OffsetMap struct {
	slots []byte
	count uint64 // of slots
	n     int
	most  int
	end   segment.Offset // everything below was put in
}

// maxLoad is how full the map may be: linear probing takes 2.5 looks for a key that is there and 8.5 for one that is not.
const maxLoad = 0.75

// OffsetMapBytes is the memory for a map of at most maxBytes (but no less than 64 slots) that has room for keys where that takes less.
func OffsetMapBytes(maxBytes, keys int64) int64 {
	return slotBytes * max(int64(min(float64(keys)/maxLoad+1, float64(maxBytes/slotBytes))), 64)
}

// NewOffsetMap makes a map in memory that is zero, room for 64 slots at least, and the caller's again when the map is not used any more.
func NewOffsetMap(mem []byte) *OffsetMap {
	slots := len(mem) / slotBytes
	return &OffsetMap{slots: mem, count: uint64(slots), most: int(float64(slots) * maxLoad)}
}

// Put notes that key was written at off, which is not below any offset put before. False: there is no room for another key.
func (m *OffsetMap) Put(key []byte, off segment.Offset) bool {
	h := sha256.Sum256(key)
	slot, found := m.find(&h)
	if !found {
		if m.n >= m.most {
			return false
		}
		m.n++
		copy(slot, h[:16])
	}
	binary.BigEndian.PutUint64(slot[16:], uint64(off)+1) // 0: empty
	return true
}

// Newest is the last offset of key, -1 when it was never put.
func (m *OffsetMap) Newest(key []byte) segment.Offset {
	h := sha256.Sum256(key)
	slot, found := m.find(&h)
	if !found {
		return -1
	}
	return segment.Offset(binary.BigEndian.Uint64(slot[16:])) - 1
}

// find gives the slot of a key, or the empty one where it belongs: there always is one.
func (m *OffsetMap) find(h *[sha256.Size]byte) (slot []byte, found bool) {
	for i, _ := bits.Mul64(binary.BigEndian.Uint64(h[16:]), m.count); ; i++ {
		if i == m.count {
			i = 0
		}
		s := m.slots[i*slotBytes : (i+1)*slotBytes]
		if binary.BigEndian.Uint64(s[16:]) == 0 {
			return s, false
		}
		if [16]byte(s) == [16]byte(h[:]) {
			return s, true
		}
	}
}

// Len is the number of keys, Bytes the size in memory.
func (m *OffsetMap) Len() int     { return m.n }
func (m *OffsetMap) Bytes() int64 { return int64(len(m.slots)) }

// End is the offset up to which the map knows every record.
func (m *OffsetMap) End() segment.Offset { return m.end }
