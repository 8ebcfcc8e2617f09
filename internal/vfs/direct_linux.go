package vfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alignment is what direct reads and writes of one file need, in bytes; both are powers of two.
type Alignment struct {
	Mem int // of the buffer's address
	Off int // of offset and length
}

// fallbackAlign is safe for every disk sold today; used where the kernel (before 6.1) does not tell.
const fallbackAlign = 4096

// fits reports whether a direct read or write of p at off is aligned.
func (a Alignment) fits(p []byte, off int64) bool {
	return off%int64(a.Off) == 0 && len(p)%a.Off == 0 &&
		(len(p) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(a.Mem) == 0)
}

// direct tells the modes that go around the page cache.
func (m Mode) direct() bool { return m == Direct || m == DirectSync }

// writes tells the modes that may write.
func (m Mode) writes() bool { return m == ReadWrite || m == DirectSync }

// DirectAlign tells the alignment that direct reads and writes of f need (statx(2), STATX_DIOALIGN). ErrDirectUnsupported when
// the kernel knows that this file cannot be read directly, even if opening it so succeeded.
func DirectAlign(f File) (Alignment, error) {
	if d, ok := f.(interface{ directAlign() (Alignment, error) }); ok {
		return d.directAlign()
	}
	return Alignment{}, pathError("direct alignment", f.Name(), ErrDirectUnsupported)
}

func (o *osFile) directAlign() (Alignment, error) {
	var st unix.Statx_t
	err := o.control("statx", func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	})
	switch {
	case err != nil:
		return Alignment{}, err
	case st.Mask&unix.STATX_DIOALIGN == 0:
		return Alignment{Mem: fallbackAlign, Off: fallbackAlign}, nil
	case st.Dio_offset_align == 0:
		return Alignment{}, pathError("statx", o.f.Name(), ErrDirectUnsupported)
	}
	return Alignment{Mem: int(st.Dio_mem_align), Off: int(st.Dio_offset_align)}, nil
}
