// Package cachectl is the operating system's page cache as an object: what of a file is resident, how to read a file
// without leaving pages behind, how to get pages written back, dropped or warmed.
//
// It exists so that a lagging reader cannot evict what real-time readers are about to read. It decides nothing: which read
// goes around the cache is admission's matter, which range nobody needs any more is partition's. It is no cache of its own
// and no I/O scheduler, and it holds no file open.
//
// # Bypass reads
//
// Every file system has a ladder of methods. A read takes the best usable rung that applies to it:
//
//	direct      O_DIRECT on an own descriptor       sealed files; aligned down and up, trimmed; touches no page
//	dontcache   preadv2(RWF_DONTCACHE), 6.14+       drops its own pages, keeps those cached before
//	dropbehind  pread, then FADV_DONTNEED           over the runs that were not resident before, up to 2 MiB borders
//	buffered    pread                               leaves everything; nothing else works (tmpfs), or chosen to compare
//
//	            Probe at start: every rung proves itself on a scratch file
//	                 │ wrong bytes, pages left, pages of others lost, not supported
//	usable ──────────┴──────────────────────────────────────────────► off (with the reason; until the next Probe)
//	   │  ▲                                                            ▲
//	   │  └── clean result ── verified live read (1 in VerifyEvery) ───┘ DemoteAfter bad results in a row
//	   └── EINVAL, EOPNOTSUPP in use: the next rung serves this read ──┘ at once, or DemoteAfter in a row
//
// Demotion costs one log line and shows in lagoon_cachectl_method_usable. Drop-behind is never demoted for what it leaves,
// since below it nothing is dropped at all. A read_mode other than auto starts the ladder at its own method, and that method
// is never demoted for pollution.
//
// dontcache and dropbehind switch the read-ahead of their descriptor off (FADV_RANDOM). That makes both exact, measured on
// Linux 6.18 and ext4: with read-ahead, up to 16 MiB stay beyond the last read of a reader that stops, and large folios
// survive narrow drops; without, 0 pages stay at any position and length. The price is about a third of the speed of a
// buffered scan; the owner's read-ahead into its own buffers earns it back. It is also why Source.Buffered must not be a
// real-time reader's descriptor: advice belongs to the open file description.
//
// # Pins
//
// A Pin keeps a range of a file resident against everything: reclaim, proactive reclaim, drop_caches, another process's
// FADV_DONTNEED. It is a mapping that is locked, mlock(2), and never touched, so no signal can come of it. Mapped pages
// cannot be dropped, so a range is unpinned before it is evicted. Without the right to lock memory nothing is pinned, which
// is said once.
//
// # Devices
//
// ProbeDevice measures whether the device below a file system has a head: a slow random read that parallel reads do not
// hide. The rotational flag of the kernel is wrong on virtual disks.
//
// # Promises
//
//   - A bypass read never evicts pages that were resident before it. For direct and dontcache the kernel sees to that. With
//     dropbehind, pages that someone else brings into the read's cold runs during the read itself can go; they are clean
//     and are read again.
//   - Dirty pages are never lost: nothing here discards them. Write-back is started and not waited for, because the flags
//     that wait take the error away from the fsync that must report it; but for WriteOut, whose caller takes its error for that of a sync.
//   - Everything about residency is a hint, old when it arrives. A wrong hint costs speed, never bytes.
//   - A device error surfaces as the read's error; only "cannot be done this way" leads to the next method.
//
// # Buffers
//
// Pool hands out page-aligned, reference-counted chunks of anonymous memory outside the Go heap, bounded in total, first
// come, first served, mapped when needed and unmapped when idle. From 512 KiB on they lie in huge pages where the kernel has any
// (transparent_hugepage/enabled is not "never"): into scattered pages of 4 KiB the block layer reads 512 KiB to 1 MiB per request.
// A Buffer has one reference per holder; the last Release recycles it. Race builds poison freed memory and panic when a freed buffer was written.
//
// # Concurrency and ownership
//
// All methods are safe for concurrent use. The package starts no goroutine that outlives a call; a read blocks its caller on the device, so the
// caller bounds how many run per device. Files, descriptors and buffers stay their owners'. The only locks are the pool's
// and that of the table of ladders; neither is held across a system call that waits for a device.
//
// The kernel is behind one seam, Kernel. cachetest simulates it, so that everything above runs without Linux, root or
// memory pressure; the tests named TestLinux repeat what matters on a real file system.
//
// # Crash guarantees
//
// None are needed: nothing here is state. A crash during Probe leaves lagoon-probe.tmp (or ProbeDevice lagoon-device-probe.tmp), which
// the next Probe or the sweep of *.tmp at start removes.
//
// Sources: cachestat(2), mincore(2), preadv2(2), open(2), statx(2), posix_fadvise(2), sync_file_range(2).
package cachectl
