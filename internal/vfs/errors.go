package vfs

import (
	"errors"
	"io/fs"
)

// Errors of this package that are not part of the FS contract in vfs.go.
var (
	// ErrNotRegular: Open or Lock found a FIFO, socket or device where a plain file must be.
	ErrNotRegular = errors.New("vfs: not a regular file")
	// ErrTooLarge: ReadFile found more bytes than the caller allows.
	ErrTooLarge = errors.New("vfs: file is larger than allowed")
	// ErrPowerCut: the operation came after the point at which a PowerCut injector took the power away.
	ErrPowerCut = errors.New("vfs: power was cut (injected)")
	// ErrDead: this Mem, or the Mem behind this handle, was ended by Crash or Kill.
	ErrDead = errors.New("vfs: memory file system has crashed or was killed")
)

// pathError gives err the operation and the path people know; nil stays nil.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
