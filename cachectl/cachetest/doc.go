// Package cachetest simulates the Linux page cache over any vfs.FS, so that what the code above does to the cache can be
// tested, and its calls compared with golden traces, without a kernel, a disk or memory pressure.
//
//	code under test ──► Sim.FS(base) ──► base (vfs.Mem, or faults and tracing over it)
//	       │                 │ every read and write touches pages
//	       ▼                 ▼
//	cachectl.Cache ──► Sim (cachectl.Kernel): folios, dirty and write-back state, two LRU lists, shadows
//
// The model keeps what the real one was measured to do, and nothing else:
//
//   - Buffered reads bring in read-ahead, in naturally aligned folios of up to 2 MiB; AdviseRandom on the same descriptor
//     stops that and brings in exactly the pages asked for, one by one.
//   - AdviseDontNeed drops clean folios that lie wholly inside the range, whoever uses them, and skips the others.
//   - RWF_DONTCACHE drops the folios that such reads brought in, when they are read, and keeps those cached before.
//   - O_DIRECT reads touch no page, but clean the dirty ones of their range first; a misaligned one is EINVAL.
//   - Above the capacity, reclaim takes the coldest clean pages that were touched once; pages touched twice are on the
//     active list and outlive a scan. Reclaimed pages leave shadows (evicted, recently evicted).
//   - Write-back that was started ends at Settle or at a sync; dirty pages under reclaim are cleaned first.
//   - A folio with a locked page stays, whatever asks for it, until the last of them is unlocked or the file is cut.
//   - With InMemory (tmpfs) everything is resident and nothing goes.
//
// Bytes always come from the base file system at once: the simulation decides what is resident, never what is read.
// It has no clock, no goroutine and no randomness; all methods are safe for concurrent use.
//
// Sim knows only files that its own FS opened: put decorators below it, not above.
package cachetest
