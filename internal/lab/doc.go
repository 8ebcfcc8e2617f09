// Package lab builds a small laboratory on one machine: file systems on loop devices, slow disks by block throttles, little
// memory by a memory cgroup; and it looks from outside at what a broker in it does: page cache, device counters, process
// I/O. It needs root and a real (not tmpfs) temporary directory, and no special hardware.
//
//	l, err := lab.Open(ctx, os.Stderr)      // waits until no other lab runs on this machine
//	d, err := l.Disk(lab.DiskOptions{...})  // ext4 on a loop device, mounted at d.Path()
//	g, err := l.Cgroup(1 << 30)             // g.Wrap(cmd) starts a process inside
//	err = d.Throttle(lab.Throttle{ReadBytes: 300e6}, g)
//	err = l.Close()
//
// Tests open labs with labtest. A disk with DiskOptions.Spindle lies on a file that a child process serves by FUSE at the pace of
// the simulated head of package spindle.
//
// # Clean-up
//
// Whatever changes the machine is written to a journal before it is done: how to undo it. Three parties read the journal,
// latest entry first: Close; a reaper process that outlives the program (Ctrl-C, panic, SIGKILL, -timeout) and notices its end
// by a closed pipe; and the next lab, for what is left when the reaper was killed, too. Each entry names one thing that
// this lab made, so nothing else is touched, and undoing twice does no harm.
//
// A program that opens labs must call RunHelper first: the reaper and other helper processes are the program itself.
//
// # Concurrency
//
// Labs exclude each other by a lock file, also between test binaries. The methods of one lab may be called from one
// goroutine; counters and residency from any.
package lab
