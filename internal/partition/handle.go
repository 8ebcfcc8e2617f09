package partition

import (
	"errors"
	"sync"
	"sync/atomic"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// coldHandle pins one segment and the descriptors that lagging reads of it use: advice is per open file description, and
// O_DIRECT is per descriptor. Shared by the chunks of one stream; the last release closes. Opening waits for the device, so
// only reads do that, and counting users does not wait for it.
type coldHandle struct {
	seg   *logSegment
	users atomic.Int32

	mu     sync.Mutex // held while a descriptor is opened
	cold   vfs.File   // nil until the first read, as direct
	direct vfs.File
	noDir  bool
}

// newHandle takes over one Acquire of seg.
func newHandle(seg *logSegment) *coldHandle {
	h := &coldHandle{seg: seg}
	h.users.Store(1)
	return h
}

// retain is for those that hold h already, in one way or another.
func (h *coldHandle) retain() { h.users.Add(1) }

func (h *coldHandle) release() {
	if h.users.Add(-1) > 0 {
		return
	}
	for _, f := range []vfs.File{h.cold, h.direct} {
		if f != nil {
			_ = f.Close() // read-only descriptors: nothing to lose
		}
	}
	h.seg.r.Release()
}

// directFile opens the O_DIRECT descriptor on first use.
func (h *coldHandle) directFile() (vfs.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.noDir {
		return nil, vfs.ErrDirectUnsupported
	}
	if h.direct == nil {
		f, err := h.seg.r.DirectFile()
		if err != nil {
			h.noDir = errors.Is(err, vfs.ErrDirectUnsupported)
			return nil, err
		}
		h.direct = f
	}
	return h.direct, nil
}

// source is what ReadBypass may use: direct reads of sealed segments only.
func (h *coldHandle) source(limit int64) (cachectl.Source, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cold == nil {
		f, err := h.seg.r.ColdFile()
		if err != nil {
			return cachectl.Source{}, err
		}
		h.cold = f
	}
	s := cachectl.Source{Buffered: h.cold, Size: limit}
	if h.seg.r.Meta().Sealed {
		s.Direct = h.directFile
	}
	return s, nil
}
