// Package vfs is the only door to files: one interface, FS, for a directory tree, with explicit durability, and four
// ways to get one.
//
//	OS(root)             a directory of the operating system (Linux)
//	NewMem(seed)         memory that knows what a power cut would leave
//	WithFaults(fs, inj)  fs with failures: EIO, ENOSPC, short writes, a power cut after the n-th change
//	WithTrace(fs, fn)    fs with every call reported, for golden files
//
//	segment, metadata, tiering, ...          tests of all of them
//	        │                                        │
//	        ▼                                        ▼
//	     vfs.FS ◄── OS          WithTrace ──► WithFaults ──► Mem ──► Crash / Kill ──► Mem
//
// It is not a cache, has no handle limit and knows no file format. Advice, residency and reads by descriptor are
// package cachectl's, on File.Fd. There is no append mode, no seek position and no recursive removal.
//
// # Names
//
// Names are relative and slash-separated; "." is the root. Any ".." element, an absolute or empty name, or a NUL is
// ErrEscape. OS walks names with openat(2) and O_NOFOLLOW from one descriptor of the root, so that a symbolic link
// below the root is refused wherever it points (ErrEscape), also when somebody swaps a directory for a link meanwhile;
// Open and Lock refuse what is not a regular file (ErrNotRegular, EISDIR) without hanging on it. The descriptor pins
// the tree: after an unmount nothing is written into the empty mount point. The root is opened when OS is called and
// may itself be a link. Directories are made with mode 0700, files with 0600.
//
// # Durability: what holds on every FS
//
//   - Bytes: those written before SyncData was called are there after any crash once it returned nil, and so is the
//     size that is needed to read them. Without it each 4 KiB block may hold its old content, its new one, one in
//     between or a mixture of 512-byte sectors, independently of other blocks and of the size: a larger size may show
//     zeros where no byte arrived.
//   - Names: creations, renames and removals in a directory are there once its SyncDir returned nil. Syncing a file
//     does not make its name durable (ext4 and xfs mostly do; POSIX does not ask for it), syncing a name does not make
//     the file's bytes durable. A new file needs both before it may be counted on.
//   - A rename that no SyncDir followed happened or did not, as one. Between two directories each SyncDir makes its
//     half durable: sync the target first, then the source, and the file is never without a name.
//   - Changes that build on each other (create x, rename x to y, rename y to z) survive in order, as a prefix. Changes
//     of unrelated names survive or vanish independently.
//   - MkdirAll is durable when it returns. Truncate is durable with the next SyncData. Allocate promises nothing
//     across a crash but less work later.
//   - A write to a DirectSync file that succeeded is durable, and the size with it. One that failed may be there in part, like bytes
//     without SyncData; it is a failed sync (OS answers every later write and SyncData of that handle with its error).
//   - A SyncData, or write to a DirectSync file, that succeeds was asked of a file system that still goes on afterwards: fdatasync alone also
//     says success on one that is shut down meanwhile, and the bytes are gone (docs/decisions/0002).
//   - A failed SyncData is final. The kernel reports a lost page once and then calls it clean (fsyncgate; measured on
//     ext4 and xfs): the bytes are still read from the cache, are not on disk, and the next fsync succeeds. So OS
//     answers every later SyncData of that handle with the first error, and callers fence the directory. Another
//     handle of the same file may still be told success: one owner per written file.
//   - WriteFileAtomic is the one way to replace a small file.
//
// # What Mem models, and what not
//
// Mem keeps for each block the current content, the synced one and some in between; for each file the sizes it had;
// for each directory the current names, the synced ones and the changes from one to the other. Crash draws from a seed
// which of them the power cut leaves (CrashOptions), within the rules above and no further: tests can rely on every
// state it produces being possible under the contract, and over many seeds every kind of state comes up. Kill leaves
// everything, as the page cache outlives a process, and still knows what a later Crash may take. The old Mem, its
// handles and its locks are dead (ErrDead).
//
// A SyncData that WithFaults makes to fail above a Mem loses the unsynced blocks as the kernel does: buffered reads see
// them until DropCaches or Crash, direct reads do not, a later SyncData succeeds without them. (Mem is not sticky where
// OS is, so that a test catches a caller who tries again.) Writing to such a block makes it whole and dirty again.
//
// Mem is stricter than real disks in names (see above), and milder in these: sectors of 512 bytes are atomic; a block
// that was synced never changes by itself; the directory tree itself is never damaged; the reservation of Allocate is
// lost; creating names takes no space.
//
// # Errors, concurrency, ownership
//
// Errors are *fs.PathError with the operation and the full path around the kernel's errno; Mem gives the same errnos
// as Linux. io.EOF comes bare, as io.ReaderAt has it. EINTR and short transfers are retried inside.
// All methods of FS and File may be called concurrently; a Close during I/O is safe and lets that I/O finish or fail.
// SyncData is one at a time per OS handle. A File has one owner, who closes it; a decorated file closes what it wraps
// even when its Close is made to fail. The package starts no goroutine.
//
// The contract is executable: package vfstest, run on every implementation and decorator.
package vfs
