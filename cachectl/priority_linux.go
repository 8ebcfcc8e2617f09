package cachectl

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Values of ioprio_set(2): who, and class and level in one number.
const (
	ioprioWhoProcess = 1
	ioprioLowest     = 2<<13 | 7 // best effort, the lowest of its eight levels; idle could starve for ever
)

// AtLowPriority runs fn on an OS thread of its own whose disk requests yield to those of other threads, where the kernel's
// scheduler for the device heeds that (bfq, mq-deadline; others ignore it). fn's goroutine must do its reads itself. A
// refusal is no error: priority is a wish. Afterwards the thread has the priority it had, such as that of an ionice(1) around the
// process. It costs about a microsecond (BenchmarkAtLowPriority). Source: ioprio_set(2).
func AtLowPriority(fn func()) {
	runtime.LockOSThread()
	before, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, 0, 0)
	if errno == 0 {
		setIOPriority(ioprioLowest)
	}
	defer func() {
		if errno == 0 {
			setIOPriority(before) // the runtime gives the thread to other goroutines
		}
		runtime.UnlockOSThread()
	}()
	fn()
}

// setIOPriority is for the calling thread.
func setIOPriority(priority uintptr) {
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, priority)
}
