package cachectl

import "errors"

// Errors by phase of use, matched with errors.Is.
var (
	// ErrNoCachestat: the kernel is older than 6.5, or a seccomp filter forbids the call. A Kernel answers it; Cache
	// reacts by using mincore from then on and does not hand it to callers.
	ErrNoCachestat = errors.New("cachectl: cachestat not available")
	// ErrNoKernelFile: the file has no kernel descriptor (a memory file system), so the page cache cannot be asked
	// about it. Reads of such a file still work, by its own ReadAt.
	ErrNoKernelFile = errors.New("cachectl: file is not backed by the kernel's page cache")
	// ErrMethodUnsupported: this file system (or kernel) cannot read by the method asked for. A Kernel answers it for
	// RWF_DONTCACHE; Cache reacts by taking the method off the file system's ladder.
	ErrMethodUnsupported = errors.New("cachectl: read method not supported by this file system")
	// ErrPinLimit: the process may not lock memory, or not so much (RLIMIT_MEMLOCK without CAP_IPC_LOCK).
	ErrPinLimit = errors.New("cachectl: not allowed to lock memory")
	// ErrWriteLost: write-back failed, and the kernel has told so for the only time.
	ErrWriteLost = errors.New("cachectl: write-back failed")
	// ErrRange: a position or length is negative, lies beyond the file, or does not fit the buffer.
	ErrRange = errors.New("cachectl: range out of bounds")
	// ErrBuffer: a buffer is too small, not aligned, or released already.
	ErrBuffer = errors.New("cachectl: unusable buffer")
	// ErrPoolClosed: Get after Close.
	ErrPoolClosed = errors.New("cachectl: pool closed")
	// ErrOptions: a field of Options is outside its limits; the text names it.
	ErrOptions = errors.New("cachectl: bad options")
)
