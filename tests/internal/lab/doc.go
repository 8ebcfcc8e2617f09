// Package lab builds a small laboratory on one machine: file systems on loop devices, slow disks by block throttles, little
// memory by a memory cgroup; and it looks from outside at what a broker in it does: page cache, device counters, process
// I/O. It needs root and a real (not tmpfs) temporary directory, and no special hardware.
//
//	l := lab.New(t)                         // waits until no other lab runs on this machine
//	d := l.Disk(lab.DiskOptions{...})       // ext4 on a loop device, mounted at d.Path()
//	g := l.Cgroup(1 << 30)                  // g.Wrap(cmd) starts a process inside
//	d.Throttle(lab.Throttle{ReadBytes: 300e6}, g)
//
// # Clean-up
//
// Whatever changes the machine is written to a journal before it is done: how to undo it. Three parties read the journal,
// latest entry first: the test's own Cleanup; a reaper process that outlives the test binary (Ctrl-C, panic, SIGKILL,
// -timeout) and notices its end by a closed pipe; and the next lab, for what a reboot left. Each entry names one thing that
// this lab made, so nothing else is touched, and undoing twice does no harm.
//
// A package that uses lab must call Main from its TestMain: the reaper and other helper processes are the test binary itself.
//
// # Concurrency
//
// Labs exclude each other by a lock file, also between test binaries. The methods of one lab may be called from one
// goroutine; counters and residency from any.
package lab
