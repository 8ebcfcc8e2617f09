package vfs

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrPlaceUnknown: the file system does not say where a file's bytes are.
var ErrPlaceUnknown = errors.New("vfs: place on the device is not known")

// The request and the layout of struct fiemap with one extent: include/uapi/linux/fiemap.h.
const (
	fsIocFiemap       = 0xc020660b
	fiemapBytes       = 32 + 56
	fiemapUnknownFlag = 2 // FIEMAP_EXTENT_UNKNOWN: not on the device yet
)

// Place is the byte of the device where f begins, for the order of reads on a disk that has to travel (ioctl FS_IOC_FIEMAP). It
// may read metadata from the device. A file may lie in several places; the first one stands for it. ErrPlaceUnknown for
// files that are not the kernel's, empty, or of a file system that does not tell.
func Place(f File) (int64, error) {
	if p, ok := f.(interface{ place() (int64, error) }); ok {
		return p.place()
	}
	return 0, pathError("place", f.Name(), ErrPlaceUnknown)
}

func (o *osFile) place() (int64, error) {
	var m [fiemapBytes]byte
	ne := binary.NativeEndian
	ne.PutUint64(m[8:], 1) // fm_length: the extent that holds byte 0
	ne.PutUint32(m[24:], 1)
	err := o.control("fiemap", func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFiemap, uintptr(unsafe.Pointer(&m[0]))); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil || ne.Uint32(m[20:]) == 0 || ne.Uint32(m[32+40:])&fiemapUnknownFlag != 0 {
		return 0, pathError("fiemap", o.f.Name(), ErrPlaceUnknown)
	}
	return int64(ne.Uint64(m[32+8:])), nil
}

func (f *hookFile) place() (int64, error) { return Place(f.f) }
