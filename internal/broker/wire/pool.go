package wire

import (
	"math/bits"
	"sync"
)

const (
	minClass = 12 // 4 KiB: what a client gets before it has sent a byte of a body
	maxClass = 22 // 4 MiB: larger buffers go to the garbage collector, a pool would pin them
)

var classes [maxClass - minClass + 1]sync.Pool

// Buffer is a pooled slice of bytes. One owner at a time; Release ends the ownership.
type Buffer struct {
	B []byte
}

// NewBuffer gives an empty buffer with room for at least size bytes.
func NewBuffer(size int) *Buffer {
	class := max(minClass, bits.Len(uint(max(size, 1)-1)))
	if class > maxClass {
		return &Buffer{B: make([]byte, 0, size)}
	}
	if b, ok := classes[class-minClass].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, 0, 1<<class)}
}

// Release gives the buffer back; in race builds its bytes are overwritten first, so that whoever still reads them fails
// loudly (a client's buffer that was reused in flight sent records to the wrong topic: CVE-2026-35554).
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	if poison {
		p := b.B[:cap(b.B)]
		for i := range p {
			p[i] = 0xdb
		}
	}
	b.B = b.B[:0]
	if cap(b.B) < 1<<minClass || cap(b.B) > 1<<maxClass {
		return
	}
	// A buffer that grew by append may belong to another class now: the largest that its room fills.
	classes[bits.Len(uint(cap(b.B)))-1-minClass].Put(b)
}
