package partition

import (
	"sync/atomic"

	"lagoon/admission"
	"lagoon/internal/vfs"
)

// place is where a segment's log file lies on its device, for the order of reads on a hard disk.
type place struct {
	id    atomic.Uint64 // of the file at its device's queue, 0: none yet
	asked atomic.Bool
	at    atomic.Int64 // byte of the device, 0: not known
}

// locate asks the file system once. It may wait for the device.
func (s *logSegment) locate(f vfs.File) {
	if !s.dir.spec.Rotating || s.place.asked.Swap(true) {
		return
	}
	if at, err := vfs.Place(f); err == nil { // else by position in the file: the order is worse, nothing else
		s.place.at.Store(at)
	}
}

// address fills in where the byte pos of the segment's log file is.
func (s *logSegment) address(r *admission.Request, pos int64) {
	if s.place.id.Load() == 0 {
		s.place.id.CompareAndSwap(0, s.dir.lastFile.Add(1))
	}
	r.File, r.Position = s.place.id.Load(), s.place.at.Load()+pos
}
